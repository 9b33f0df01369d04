"""Opus-mt's tokenizer, SentencePiece with a vocabulary of its own: ids and texts of transformers' MarianTokenizer."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeq
from edgeq.errors import EdgeqError, FormatError, UnsupportedError
from edgeq.targets.bundle.tokenizer.marian import marian_tokenizer
from edgeq.targets.bundle.tokenizer.sentencepiece_file import read_sentencepiece
from edgeq.targets.bundle.tokenizer.table import reason_of, write_tokenizer

SOURCE = ["the cat sat on the mat", "a small red house by the sea", "boats in it, many of them!", "we run outside"]
TARGET = ["die Katze saß auf der Matte", "ein kleines rotes Haus am Meer", "Boote darin, viele!", "über den Hügel"]
STRANGE = ["Katze", "saß", "é", "①", "ﬁ", "ｶﾞ", "½", "Ａ", "汉字", "\u0301", "e\u0301", "…", ">>deu<<", ">>fra<<", "<<",
           ">>", "</s>", "<unk>", "<pad>", "▁", "😀", "👩‍👩‍👧", "\u3000", "\u200b", "\u00ad", "llll"]  # fmt: skip


def _trained(folder: Path, name: str, lines: Iterable[str], **options: Any) -> None:
    settings = {"vocab_size": 90, "model_type": "unigram", "character_coverage": 1.0, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(lines) * 30), model_prefix=str(folder / name), minloglevel=2, **(settings | options)
    )
    (folder / f"{name}.model").rename(folder / f"{name}.spm")
    (folder / f"{name}.vocab").unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as opus-mt has them. Two tokens of the source have no number of their own, as happens on the hub."""
    return make_folder(tmp_path_factory.mktemp("marian"))


def make_folder(folder: Path, *, source: Sequence[str] = SOURCE, **options: Any) -> Path:
    """Writes a tokenizer whose source side is trained on some lines."""
    for name, lines in (("source", source), ("target", TARGET)):
        _trained(folder, name, lines, **(options if name == "source" else {}))
    files = [str(folder / f"{name}.spm") for name in ("source", "target")]
    models = [sentencepiece.SentencePieceProcessor(model_file=file) for file in files]
    pieces = sorted({model.id_to_piece(number) for model in models for number in range(3, model.get_piece_size())})
    assert source is not SOURCE or {"ou", "▁the"} & set(pieces)
    names = ["</s>", "<unk>", ">>deu<<", *(piece for piece in pieces if piece not in ("ou", "▁the")), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer", "model_max_length": 60}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _tokenizer(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advises a package that it then does not use
        return transformers.AutoTokenizer.from_pretrained(folder)


def _lines(count: int) -> list[str]:
    chance = random.Random(7)  # noqa: S311
    words = [word for line in SOURCE for word in line.split()] + STRANGE
    lines = []
    for _ in range(count):
        line = chance.choice([">>deu<< ", ">>fra<<", "", "", "", " >>deu<<"]) + chance.choice(words[:20])
        for word in chance.choices(words, k=chance.randint(0, 14)):
            line += "".join(chance.choices(word + "abc ll", k=len(word))) if chance.random() < 0.3 else word
            line += chance.choice([" "] * 8 + ["", "  ", "\t", "\u00a0"])
        lines.append(line)
    return lines


def test_tokens_are_those_of_transformers(
    folder: Path,
    bundle_with: Callable[[Any], Path],
    tokens_of: Callable[[Path, Sequence[str]], list[list[int]]],
    tmp_path: Path,
) -> None:
    write_tokenizer(folder / "vocab.json", tmp_path / "tokenizer.bin")
    assert reason_of(tmp_path / "tokenizer.bin") is None
    tokenizer, lines = _tokenizer(folder), _lines(1500)
    wanted = [tokenizer(line, verbose=False)["input_ids"] for line in lines]
    found = tokens_of(bundle_with((tmp_path / "tokenizer.bin").read_bytes()), lines)
    different = [(line, one, other) for line, one, other in zip(lines, found, wanted, strict=True) if one != other]
    assert different == []
    special = {*range(3), tokenizer.pad_token_id}  # those that end and are unknown, a code of a language
    assert {number for ids in wanted for number in ids} > special


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "bpe"}, "SentencePiece model of kind BPE"),
        ({"byte_fallback": True, "vocab_size": 350}, "SentencePiece model with byte_fallback"),
        ({"user_defined_symbols": ["<x>"]}, "SentencePiece model with user-defined symbols"),
        ({"treat_whitespace_as_suffix": True}, "SentencePiece model with treat_whitespace_as_suffix"),
    ],
)
def test_other_models_are_refused_by_name(folder: Path, options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    for name in ("vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    _trained(tmp_path, "source", SOURCE, **options)
    write_tokenizer(tmp_path / "vocab.json", tmp_path / "tokenizer.bin")
    assert reason_of(tmp_path / "tokenizer.bin") == reason


def test_settings_of_the_tokenizer_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "source.spm"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for asked, message in (
        ({"separate_vocabs": True}, "a vocabulary for each"),
        ({"sp_model_kwargs": {"alpha": 1}}, "sp_model_kwargs"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(asked))
        with pytest.raises(UnsupportedError, match=message):
            marian_tokenizer(tmp_path, names=False)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<fill>"}))
    with pytest.raises(FormatError, match=r"vocab\.json lacks pad_token '<fill>'"):
        marian_tokenizer(tmp_path, names=False)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray((folder / "source.spm").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "source.spm"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(EdgeqError):
        assert read_sentencepiece(path).scores


@pytest.mark.slow  # compiles an encoder and a decoder
def test_a_translator_as_the_hub_has_it(folder: Path, tmp_path: Path) -> None:
    """Padding is banned, beams count what is left as all there is: settings that every file of opus-mt has."""
    tokenizer = _tokenizer(folder)
    padding = tokenizer.pad_token_id
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=len(tokenizer.encoder), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
        pad_token_id=padding, eos_token_id=0, bos_token_id=0, decoder_start_token_id=padding, forced_eos_token_id=0,
        scale_embedding=True, activation_function="swish", init_std=0.3,
    )  # fmt: skip
    model = transformers.MarianMTModel(config).eval()
    with torch.no_grad():
        model.final_logits_bias.normal_()
    model.generation_config = transformers.GenerationConfig(
        bad_words_ids=[[padding]], bos_token_id=0, decoder_start_token_id=padding, eos_token_id=0,
        forced_eos_token_id=0, max_length=30, num_beams=4, pad_token_id=padding, renormalize_logits=True,
    )  # fmt: skip
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(tmp_path)
    edgeq.export_onnx(tmp_path, tmp_path / "onnx", cache="float32")
    remarks: list[str] = []
    edgeq.compile_bundle(tmp_path / "onnx", tmp_path / "bundle", target="host", remark=remarks.append)
    assert remarks == []
    bundle = edgeq.load(tmp_path / "bundle", threads=1)
    for text in ("the cat sat on the mat", ">>deu<< boats é in it", "a small   red house"):
        ids = model.generate(**tokenizer(text, return_tensors="pt"))[0].tolist()
        (made,) = bundle.rewrite([text])
        assert made.ids == ids[1:]
        assert made.generated == tokenizer.decode(ids, skip_special_tokens=True)
