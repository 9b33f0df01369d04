"""One stage of ``deploy`` in a process of its own; prints how much its resident set grew, as JSON.

Started as ``python -m benchmarks.memory.stage create NAME FOLDER``, or with ``STAGE FOLDER SMALL``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.memory import give_back

RECIPE = "ptq-w8a8"
_DATA = Path(__file__).parents[1] / "data"
_EXAMPLES, _CHARACTERS = 16, 1100
"""What is measured on, a whole batch at least: memory depends on its size, not on how many there are."""
_SIZES = {"num_hidden_layers": 12, "max_position_embeddings": 512}
_SMALL = {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 2, "vocab_size": 400}
_LARGE = 100_000
"""Tokens of a vocabulary that takes memory by itself."""
SMALL_ENCODER, SMALL_DECODER = "small encoder", "small decoder"
_ENCODERS: dict[str, dict[str, int]] = {
    "bert-base": {
        **_SIZES, "vocab_size": 30522, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
    },
    "multilingual-e5-small": {
        **_SIZES, "vocab_size": 250037, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536,
    },
    SMALL_ENCODER: {**_SMALL, "max_position_embeddings": 512, "intermediate_size": 96},
}  # fmt: skip
_DECODERS: dict[str, dict[str, int]] = {
    "gpt2-small": {},
    SMALL_DECODER: {"n_layer": 2, "n_embd": 48, "n_head": 2, "vocab_size": 400},
}
"""What is not the default of ``GPT2Config``, which is GPT-2 small."""
SMALL = {**dict.fromkeys(_ENCODERS, SMALL_ENCODER), **dict.fromkeys(_DECODERS, SMALL_DECODER)}
"""By name of a model: the small one that brings in what a stage needs."""
MODELS = tuple(name for name, small in SMALL.items() if name != small)


def create(name: str, folder: Path) -> None:
    """Writes a model with random weights, and a tokenizer of single characters or bytes."""
    import torch

    torch.manual_seed(0)
    if name in _ENCODERS:
        _create_encoder(_ENCODERS[name], folder / "float")
    else:
        _create_decoder(_DECODERS[name], folder / "float")


def _create_encoder(sizes: dict[str, int], folder: Path) -> None:
    import transformers

    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder)
    if sizes["vocab_size"] > _LARGE:
        _unigram(sizes["vocab_size"]).save_pretrained(folder)
        return
    letters = [chr(code) for code in range(0x20, 0x7F)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def _unigram(count: int) -> Any:
    """A tokenizer with as many pieces as the table has rows, which take as much memory as those of real words."""
    import random

    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [chr(code) for code in range(0x21, 0x7F)]
    special, chosen = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], random.Random(0)  # noqa: S311  # no secret
    pieces = dict.fromkeys([*special, "\u2581", *letters])
    while len(pieces) < count:
        pieces["".join(chosen.choices("\u2581abcdefghijklmnopqrstuvwxyz", k=chosen.randint(3, 9)))] = None
    scored = [(piece, -8.0 - at / count) for at, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    roles = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def _create_decoder(sizes: dict[str, int], folder: Path) -> None:
    import transformers

    from benchmarks.true_size.models import byte_tokenizer

    tokenizer = byte_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _compress(folder: Path) -> None:
    from edgeq.compress import compress_model

    compress_model(folder / "float", folder / "checkpoint", recipe=RECIPE)


def _export(folder: Path) -> None:
    from edgeq.export.exporter import export_onnx

    export_onnx(folder / "checkpoint", folder / "onnx", force=True)


def _export_float(folder: Path) -> None:
    from edgeq.export.exporter import export_onnx

    export_onnx(folder / "float", folder / "float-onnx", force=True)


def _compile(folder: Path) -> None:
    from edgeq.targets.bundle.writer import compile_bundle

    compile_bundle(folder / "onnx", folder / "bundles" / "host", target="host")


def _accuracy(folder: Path) -> None:
    from edgeq.checkpoint import read_adapter

    measure = _perplexity if read_adapter(folder / "float").task == "generate" else _similarity
    measure(folder)


def _similarity(folder: Path) -> None:
    from edgeq.deploy.accuracy import measure_accuracy
    from edgeq.evaluate.data import read_evaluation_set
    from edgeq.progress import silent

    data = read_evaluation_set(_DATA / "demo_sts.tsv", limit=_EXAMPLES)
    measure_accuracy(
        folder / "float", folder / "checkpoint", {"host": folder / "bundles" / "host"}, data=data, progress=silent
    )


def _perplexity(folder: Path) -> None:
    from edgeq.deploy.perplexity import measure_perplexity
    from edgeq.evaluate.data import TextFile, read_text_file
    from edgeq.models.cache import DEFAULT_CACHE_DTYPE
    from edgeq.progress import silent

    whole = read_text_file(_DATA / "demo_sts.tsv")
    measure_perplexity(
        folder / "float",
        folder / "checkpoint",
        {"host": folder / "bundles" / "host"},
        text=TextFile(whole.path, whole.content[:_CHARACTERS]),
        cache_dtype=DEFAULT_CACHE_DTYPE,
        progress=silent,
    )


def _parity(folder: Path) -> None:
    from edgeq.parity.run import run_parity
    from edgeq.results import About, RecipeOfRun, RunRecord

    source = str(folder / "float")
    RunRecord(About("model", source, source, RecipeOfRun(RECIPE, "", ""), {}, ()), {}).write(folder / "deploy.json")
    run_parity(folder)


def _profile(folder: Path) -> None:
    from edgeq.targets.devices.profiler import profile_bundle

    profile_bundle(folder / "bundles" / "host", float_onnx=folder / "float-onnx", rounds=6)


STAGES: dict[str, Callable[[Path], None]] = {
    "compress": _compress,
    "export": _export,
    "export float": _export_float,
    "compile": _compile,
    "accuracy": _accuracy,
    "parity": _parity,
    "profile": _profile,
}
"""In the order in which they run; each reads what those before it wrote."""


def growth(work: Callable[[], None]) -> dict[str, int]:
    """Returns the bytes by which the resident set of this process grew at most while something ran."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the largest resident set so far is forgotten
    before = _status("VmRSS")
    work()
    return {"bytes": _status("VmHWM") - before, "baseline_bytes": before}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs what is asked for."""
    if arguments[0] == "create":
        shutil.rmtree(arguments[2], ignore_errors=True)
        create(arguments[1], Path(arguments[2]))
        return {}
    stage, folder, small = STAGES[arguments[0]], Path(arguments[1]), Path(arguments[2])
    stage(small)
    return growth(lambda: stage(folder))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
