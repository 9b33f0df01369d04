"""Ten thousand lines in twelve scripts for every kind of tokenizer: ids, types, places, pairs, cuts and overlaps.

Lines are made by chance of a fixed seed; with ``EDGEQ_WIKITEXT`` half of the pairs are of real text.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import edgeq
from edgeq.targets.bundle.tokenizer.table import reason_of, write_tokenizer
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from tests.targets.bundle.tokenizer import test_marian as marian
from tests.targets.bundle.tokenizer import test_pairs_and_places as pairs
from tests.targets.bundle.tokenizer import test_sentence_pieces as sentence_pieces
from tests.targets.bundle.tokenizer import test_texts_to_tokens as texts_to_tokens

pytestmark = pytest.mark.slow

COUNT = 10_000
KINDS: dict[str, Callable[[], Tokenizer]] = {**texts_to_tokens.MADE, **sentence_pieces.MADE, **pairs.OWN}


def _lines(seed: int, count: int) -> list[str]:
    return [sentence_pieces._line(seed + at) for at in range(count)]


def _real_lines(count: int) -> list[str]:
    path = Path(os.environ.get("EDGEQ_WIKITEXT", "wikitext2/train.txt"))
    if not path.is_file():
        return []
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line[:400] for line in lines if len(line) > 20][:count]


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, bundle_with: Callable[[Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Tokenizer, dict[str, Any]]:
    """A tokenizer, and two bundles with it: one cuts texts at their end, one at their beginning."""
    tokenizer = KINDS[request.param]()
    original, bundles = bundle_with(tokenizer), {}
    for side in ("right", "left"):
        folder = tmp_path_factory.mktemp("cut") / "bundle"
        shutil.copytree(original, folder)
        manifest = read_manifest(folder)
        write_manifest(folder, dataclasses.replace(manifest, text=dataclasses.replace(manifest.text, cut_side=side)))
        bundles[side] = edgeq.load(folder)
    return request.param, tokenizer, bundles


def test_ids_types_and_places(kind: tuple[str, Tokenizer, dict[str, Any]]) -> None:
    _, tokenizer, bundles = kind
    for line in _lines(20_000, COUNT):
        assert pairs._rows(bundles["right"], line) == pairs._expected(tokenizer, line), line


def test_pairs(kind: tuple[str, Tokenizer, dict[str, Any]]) -> None:
    _, tokenizer, bundles = kind
    lines = [f"a{line}" for line in _real_lines(COUNT)]
    lines += _lines(50_000, 2 * COUNT - len(lines))
    random.Random(6).shuffle(lines)  # noqa: S311
    for pair in zip(lines[:COUNT], lines[COUNT:], strict=True):
        assert pairs._rows(bundles["right"], pair) == pairs._expected(tokenizer, pair), pair


def test_what_is_cut_off_and_what_overlaps(kind: tuple[str, Tokenizer, dict[str, Any]]) -> None:
    name, tokenizer, bundles = kind
    chance, lines = random.Random(name), _lines(80_000, 2 * COUNT)  # noqa: S311
    # Without a post-processor the package says of further rows of a pair that all tokens are of the first text.
    kinds_of_text = 1 if tokenizer.post_processor is None else 2
    try:
        for pair in zip(lines[:COUNT], lines[COUNT:], strict=True):
            side = chance.choice(("right", "left"))
            text = chance.choice([pair[0], pair][:kinds_of_text])
            pairs._compare_cut(tokenizer, bundles[side], text, chance, side)
    finally:
        tokenizer.no_truncation()


def test_marian(
    bundle_with: Callable[[Any], Path], tokens_of: Callable[[Path, Sequence[str]], list[list[int]]], tmp_path: Path
) -> None:
    folder = marian.make_folder(tmp_path, source=_lines(0, 400), vocab_size=900)
    tokenizer, lines = marian._tokenizer(folder), _lines(20_000, COUNT)
    write_tokenizer(folder / "vocab.json", tmp_path / "tokenizer.bin")
    assert reason_of(tmp_path / "tokenizer.bin") is None
    found = tokens_of(bundle_with((tmp_path / "tokenizer.bin").read_bytes()), lines)
    for line, ids in zip(lines, found, strict=True):
        assert ids == tokenizer(line, verbose=False)["input_ids"], line
