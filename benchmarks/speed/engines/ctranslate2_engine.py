"""CTranslate2: float32, int8, and int8 with the rest in bfloat16.

A decoder's prompt is read by asking for one token. For a step the prompt is given as a static one, whose keys and
values the engine keeps: what is timed is one more token after it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from turns import Call, Restore, ids, nothing, serve

COMPUTE_TYPES = {"float32": "float32", "int8": "int8", "int8-bf16": "int8_bfloat16"}
"""The engine's own names of variants."""


def make(model: Path, variant: str) -> None:
    """Converts the checkpoint; the types of variants are chosen when a model is loaded, from one file of float32."""
    del variant
    folder = model / "ctranslate2"
    if folder.is_dir():
        return
    made = folder.with_name("ctranslate2-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=model) as copy:
        for file in (model / "float").iterdir():
            (Path(copy) / file.name).symlink_to(file.resolve())
        _name_all_tokens(Path(copy))
        ctranslate2.converters.TransformersConverter(copy).convert(str(made))
    made.rename(folder)


def _name_all_tokens(checkpoint: Path) -> None:
    """Writes a tokenizer with a word for every row of the table: the engine takes words instead of token ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    count = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tokenizer = Tokenizer(models.WordLevel({f"w{token}": token for token in range(count)}, unk_token="w0"))  # noqa: S106
    for file in checkpoint.glob("*token*"):
        file.unlink()
    special = {"unk_token": "w0", "bos_token": "w0", "eos_token": "w0"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(checkpoint)


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    folder, given, tokens = str(Path(request["folder"]) / "ctranslate2"), ids(request), request["tokens"]
    settings = {
        "device": "cpu", "compute_type": COMPUTE_TYPES[request["variant"]], "inter_threads": 1,
        "intra_threads": request["threads"],
    }  # fmt: skip
    if request["kind"] == "encode":
        encoder = ctranslate2.Encoder(folder, **settings)
        rows = given.tolist()
        return lambda: np.asarray(encoder.forward_batch(rows).last_hidden_state), nothing
    if request["kind"] == "rewrite":
        return _rewriting(ctranslate2.Translator(folder, **settings), request, _words(Path(folder))), nothing
    generator = ctranslate2.Generator(folder, **settings)
    words = _words(Path(folder))
    if request["kind"] == "prefill":
        return _one_token(generator, [[words[token] for token in row] for row in given[:, :tokens]], None), nothing
    # The texts of a batch share their static prompt: a step reads as many keys and values for each of them.
    prompt, last = [words[token] for token in given[0, :tokens]], [[words[token]] for token in given[:, tokens]]
    return _one_token(generator, last, prompt), nothing


def _rewriting(translator: Any, request: dict[str, Any], words: list[str]) -> Call:
    numbers = {word: number for number, word in enumerate(words)}
    texts, count = [[words[token] for token in row] for row in ids(request)], request["new_tokens"]

    def call() -> np.ndarray:
        found = translator.translate_batch(
            texts, beam_size=request["beams"], min_decoding_length=count, max_decoding_length=count, max_batch_size=0,
            max_input_length=0,
        )  # fmt: skip
        return np.array([[numbers[word] for word in one.hypotheses[0]][-count:] for one in found], np.float32)

    return call


def _one_token(generator: Any, texts: list[list[str]], prompt: list[str] | None) -> Callable[[], np.ndarray]:
    """The logits of the token after each text."""

    def call() -> np.ndarray:
        found = generator.generate_batch(
            texts, static_prompt=prompt, cache_static_prompt=True, max_length=1, min_length=0,
            include_prompt_in_result=False, return_logits_vocab=True, sampling_topk=1, max_batch_size=0,
        )  # fmt: skip
        return np.stack([np.asarray(one.logits[0][0]).ravel() for one in found])

    return call


def _words(folder: Path) -> list[str]:
    """The engine's names of token ids."""
    file = next(folder.glob("*vocabulary.json"), folder / "vocabulary.json")
    if file.is_file():
        return list(json.loads(file.read_text(encoding="utf-8")))
    return (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    serve(load, make=make, packages=("ctranslate2",))
