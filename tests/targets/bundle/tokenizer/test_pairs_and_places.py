"""Pairs, what is cut off, rows that overlap and the places of tokens: those of the package tokenizers."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

import edgeq
from edgeq.errors import UnsupportedError, UsageError
from edgeq.targets.bundle.tokenizer.frames import trimming
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.text_options import text_options
from edgeq.targets.runtime.texts import to_pairs
from tests.targets.bundle.tokenizer import test_sentence_pieces as sentence_pieces
from tests.targets.bundle.tokenizer import test_texts_to_tokens as texts_to_tokens

CORNERS = [
    "plain words, and punctuation! (as it is) -- don't won't",
    "  leading and   many   spaces   trailing  ",
    "tab\there, no-break\u00a0space, thin\u2009space, line\u2028separator, zero\u200bwidth, \ufeffmark",
    "soft\u00adhyphen\u00ad\u00ad and \u00ad first",
    "Café CAFÉ cafe\u0301 ÀÉÎÕÜ Straße İstanbul ıI ǅ ﬁ ﬂ Å Ω ſ K ½",
    "marks: q\u0307\u0323 q\u0323\u0307 é\u0323\u0302 a\u0345\u0323 \u1d15f\U0001d15f\U0001d160 x\u20dd",
    "汉字和かなカナ 한국어 텍스트 각 각 漢字かな混じり文。「引用」、終わり",
    "emoji 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ☺️ 1️⃣",
    "العربية مُحَمَّد עִבְרִית हिन्दी தமிழ் ไทย ខ្មែរ ქართული Ελληνικά русский",
    "I'll HE'S don'T 'Re ＤＯＮ'ſ Kelvin'ſ ½ ① ⅷ ٣٤٥ 12,345.67",
    "x\u0344 \u0958 가\u11a8 \u1100\u1161\u11a8 \u2126\u0301",
    "controls \x01\x02\x1f\x7f\x85 and \x1c feeds",
    "<unk> [MASK] [CLS]x[SEP] <mask> x  <mask>  y <s></s> <|endoftext|>end <pad>",
    "x",
    "'s",
]
NO_WORD = (1 << 64) - 1
TRUNCATIONS = {"longest_first": 0, "only_first": 1, "only_second": 2}


def _roberta() -> Tokenizer:
    specials = ("<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True))
    tokenizer = texts_to_tokens.byte_pairs(specials=specials)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return tokenizer


def _mpnet() -> Tokenizer:
    """Pieces of words in RoBERTa's frame, whose trimming has nothing to trim there."""
    table = json.loads(texts_to_tokens.MADE["word pieces"]().to_str())
    kept = [token for token in table["model"]["vocab"] if token == token.strip()]
    table["model"]["vocab"] = {token: number for number, token in enumerate(kept)}
    tokenizer = Tokenizer.from_str(json.dumps(table))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def _trimmed() -> Tokenizer:
    tokenizer = texts_to_tokens.byte_pairs(specials=("<s>", "</s>", AddedToken("<mask>", lstrip=True, rstrip=True)))
    template = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A </s>:1 $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return tokenizer


def _decomposed() -> Tokenizer:
    tokenizer = texts_to_tokens.whole_words()
    parts = [normalizers.NFD(), normalizers.Lowercase(), normalizers.Replace("e", "")]
    tokenizer.normalizer = normalizers.Sequence(parts)
    return tokenizer


def _qwen() -> Tokenizer:
    """Composes characters, splits digits and looks at endings in any case, as Qwen2 does."""
    tokenizer = texts_to_tokens.byte_pairs()
    tokenizer.normalizer = normalizers.NFC()
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    pattern += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return tokenizer


def _smollm() -> Tokenizer:
    tokenizer = texts_to_tokens.byte_pairs()
    tokenizer.normalizer = normalizers.NFKC()
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _first_only() -> Tokenizer:
    """A space is put before the first word of a text only."""
    tokenizer = sentence_pieces.MADE["llama"]()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


NAMES = [
    *("word pieces", "word pieces with case and accents", "byte pairs of an own pattern", "whole words"),
    *("roberta", "trimmed", "decomposed", "xlm-roberta", "converted", "albert", "llama"),
    *("qwen", "smollm", "first only", "mpnet"),
]
OWN = {
    "roberta": _roberta,
    "trimmed": _trimmed,
    "decomposed": _decomposed,
    "qwen": _qwen,
    "smollm": _smollm,
    "first only": _first_only,
    "mpnet": _mpnet,
}


def test_what_would_be_trimmed_is_refused() -> None:
    spaced = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "\u0120cat": 2}))
    spaced.post_processor = processors.RobertaProcessing(("[SEP]", 1), ("[CLS]", 0), trim_offsets=True)
    with pytest.raises(UnsupportedError, match="trims places"):
        trimming(json.loads(spaced.to_str()), byte_level=False)
    assert trimming(json.loads(_mpnet().to_str()), byte_level=False) == (False, False)


@pytest.fixture(scope="session")
def made(bundle_with: Any) -> Any:
    """Returns a function that makes a tokenizer and its loaded bundle, once a run."""
    kept: dict[str, tuple[Tokenizer, Any]] = {}

    def make(name: str) -> tuple[Tokenizer, Any]:
        if name not in kept:
            tokenizer = {**texts_to_tokens.MADE, **sentence_pieces.MADE, **OWN}[name]()
            kept[name] = (tokenizer, edgeq.load(bundle_with(tokenizer)))
        return kept[name]

    return make


def _rows(bundle: Any, text: Any, *, truncation: str = "longest_first", **reading: Any) -> list[list[tuple[int, ...]]]:
    """Rows of a text: id, type, sequence, start, end, word of each token."""
    options = text_options(**reading)
    options.truncation = TRUNCATIONS[truncation]
    given_texts, seconds = to_pairs([text])
    if seconds is not None:
        options.seconds = type(options.seconds)(seconds[0])
    (rows,) = bundle.session.encode(given_texts, options)
    fields = ("id", "type", "sequence", "start", "end", "word")
    return [[tuple(int(token[name]) for name in fields) for token in row] for row in rows]


def _expected(tokenizer: Tokenizer, text: Any) -> list[list[tuple[int, ...]]]:
    encoding = tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text)
    return [_tokens(one) for one in [encoding, *encoding.overflowing]]


def _tokens(encoding: Any) -> list[tuple[int, ...]]:
    columns = (encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.offsets, encoding.word_ids)
    found = []
    for number, row_type, sequence, places, word in zip(*columns, strict=True):
        found.append((number, row_type, *((-1, 0, 0, NO_WORD) if sequence is None else (sequence, *places, word))))
    return found


def _texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)  # noqa: S311
    letters = [letter for line in CORNERS for letter in line]
    mixed = ["".join(chance.choices(letters, k=chance.randint(1, 40))) for _ in range(count)]
    return [f"a{line}" for line in [*CORNERS, *mixed, *(sentence_pieces._line(seed + at) for at in range(count))]]


@pytest.mark.parametrize("name", NAMES)
def test_places_of_tokens(made: Any, name: str) -> None:
    tokenizer, bundle = made(name)
    for text in [*CORNERS, *_texts(300, 11)]:
        if text.strip():
            assert _rows(bundle, text) == _expected(tokenizer, text), text


@pytest.mark.parametrize("name", NAMES)
def test_pairs(made: Any, name: str) -> None:
    tokenizer, bundle = made(name)
    texts = _texts(60, 12)
    for pair in zip(texts, reversed(texts), strict=True):
        assert _rows(bundle, pair) == _expected(tokenizer, pair), pair


@pytest.mark.parametrize("name", ["word pieces", "roberta", "trimmed", "converted"])
@pytest.mark.parametrize("direction", ["right", "left"])
def test_what_is_cut_off(made: Any, name: str, direction: str, tmp_path: Path) -> None:
    tokenizer, original = made(name)
    shutil.copytree(original.path, tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    rules = dataclasses.replace(manifest.text, cut_side=direction)
    write_manifest(tmp_path / "bundle", dataclasses.replace(manifest, text=rules))
    bundle = edgeq.load(tmp_path / "bundle")
    chance = random.Random(name + direction)  # noqa: S311
    texts = _texts(40, 13)
    try:
        for _ in range(150):
            pair = tuple(chance.choices(texts, k=2))
            _compare_cut(tokenizer, bundle, chance.choice([pair, pair[0]]), chance, direction)
    finally:
        tokenizer.no_truncation()


def _compare_cut(tokenizer: Tokenizer, bundle: Any, text: Any, chance: random.Random, direction: str) -> None:
    truncation = chance.choice(sorted(TRUNCATIONS)) if isinstance(text, tuple) else "longest_first"
    longest = chance.randint(12, 30)  # leaves each of two texts more tokens than rows have in common
    parts = text if isinstance(text, tuple) else (text,)
    counts = [len(tokenizer.encode(part, add_special_tokens=False).ids) for part in parts]
    around = len(tokenizer.encode(*parts).ids) - sum(counts)
    room = longest - around
    if truncation != "longest_first" and counts[truncation == "only_first"] >= room:
        with pytest.raises(UsageError, match="alone leaves no token"):
            _rows(bundle, text, truncation=truncation, on_long="cut", max_tokens=longest)
        return
    most = 2 if truncation == "longest_first" else room - counts[truncation == "only_first"] - 1
    stride = chance.randint(0, min(2, most))
    tokenizer.enable_truncation(longest, stride=stride, strategy=truncation, direction=direction)
    expected = _expected(tokenizer, text)
    tokenizer.no_truncation()
    options = {"truncation": truncation, "max_tokens": longest}
    assert _rows(bundle, text, on_long="split", overlap=stride, **options) == expected, (text, longest, truncation)
    assert _rows(bundle, text, on_long="cut", **options) == expected[:1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=40))
def test_places_in_any_text(made: Any, texts: Sequence[str]) -> None:
    for name in ("word pieces", "roberta", "decomposed", "converted"):
        tokenizer, bundle = made(name)
        for text in texts:
            assert _rows(bundle, f"a{text}") == _expected(tokenizer, f"a{text}"), (name, text)
