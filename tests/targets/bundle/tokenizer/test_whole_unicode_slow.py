"""Tokens of ``edgeq-run`` on every character there is, and on thousands of lines of real text."""

import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import edgeq

pytestmark = pytest.mark.slow

TEXTS = Path(os.environ.get("EDGEQ_WIKITEXT", "wikitext2/train.txt"))
"""Training set of WikiText-2, a text of which is a line."""
ZOO = Path(edgeq.__file__).parents[1] / "models" / "zoo"


@pytest.fixture(scope="module", params=["gpt2-wikitext2", "bart-infill-scitldr", "all-MiniLM-L6-v2"])
def made(request, bundle_with):
    """A real tokenizer and its bundle."""
    folder = request.getfixturevalue("minilm") if request.param == "all-MiniLM-L6-v2" else ZOO / request.param
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, bundle_with(tokenizer)


def _compare(made, tokens_of, lines):
    tokenizer, bundle = made
    for line, found in zip(lines, tokens_of(bundle, lines), strict=True):
        assert found == tokenizer.encode(line).ids, line


def test_every_character(made, tokens_of):
    characters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000 and chr(code) not in "\r\n"]
    for start in range(0, len(characters), 100_000):
        _compare(made, tokens_of, [f"a{character}b{character}" for character in characters[start : start + 100_000]])


def test_ten_thousand_lines(made, tokens_of):
    if not TEXTS.is_file():
        pytest.skip(f"no {TEXTS}: set EDGEQ_WIKITEXT to the training set of WikiText-2")
    lines = [line for line in TEXTS.read_text(encoding="utf-8").split("\n") if line.strip()][:10_000]
    _compare(made, tokens_of, lines)
