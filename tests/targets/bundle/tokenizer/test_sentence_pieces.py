"""Tokens of SentencePiece's kinds of tokenizer, Unigram and BPE with bytes, are those of the package tokenizers."""

from __future__ import annotations

import functools
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgeq.errors import FormatError
from edgeq.targets.bundle.tokenizer.charsmap import cluster_sets, make_charsmap, split_charsmap

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzéüñçßœ",
    "αβγδεζηθικλμνξοπρστυφχψωάέ",
    "абвгдежзийклмнопрстуфхцчшщё",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "अआइईउकखगघचजटडतदनपबमयरलवशसह्ािीुे",
    "அஆஇகஙசஞடணதநபமயரலவாிீு",
    "กขคงจชซญดตถทนบปผพฟมยรลวสหอะาิีเแ",
    "한국어텍스트가나다라마바사아자차카타파하",
    "汉字和中国人民大学生时间工作世界日本語",
    "あいうえおかきくけこさしすせそカナタチツテト",
    "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
]
"""Letters of twelve scripts."""
ENDINGS = [
    *("ﬁ", "①", "½", "Ａ", "ｶﾞ", "™", "ⅷ", "😀", "👩‍👩‍👧", "🇩🇪", "\u0600", "ᄀ\u1161\u11a8", "é\u0302"),
    *("\u0301", "\u20dd", "\u0e31", "\u0903", "\u200d", "\u3000", "\u200b", "_", "▁", "\u00ad"),
    *(",", ".", "!", "…", "—", "।", "<mask>", "</s>"),
]
SPACES = [" "] * 12 + ["  ", "\t", "\u00a0", "", "   "]


@functools.cache
def _words() -> list[list[str]]:
    chance = random.Random(3)  # noqa: S311
    return [["".join(chance.choices(letters, k=chance.randint(1, 7))) for _ in range(100)] for letters in ALPHABETS]


def _line(seed: int) -> str:
    """Words of one script, some in capitals or decomposed, some with what the normalizers change."""
    chance = random.Random(seed)  # noqa: S311
    line = ""
    for word in chance.choices(chance.choice(_words()), k=chance.randint(1, 14)):
        kind = chance.random()
        changed = word.upper() if kind < 0.1 else unicodedata.normalize("NFD", word) if kind < 0.2 else word
        line += changed + (chance.choice(ENDINGS) if kind > 0.8 else "") + chance.choice(SPACES)
    return f"a{line}"


@functools.cache
def _charsmap() -> bytes:
    """NFKC of single characters and of their decompositions, spaces, and what disappears, as in nmt_nfkc."""
    texts = {}
    for code in [*range(0x80, 0x500), *range(0x2000, 0x2200), *range(0x3000, 0x3100), *range(0xFB00, 0xFB07)]:
        character = chr(code)
        normal, parts = (unicodedata.normalize(form, character) for form in ("NFKC", "NFD"))
        texts |= {character.encode(): normal} if normal != character else {}
        texts |= {parts.encode(): normal} if len(parts) > 1 and unicodedata.normalize("NFKC", parts) == normal else {}
    texts |= {chr(code).encode(): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFA0)}
    texts |= dict.fromkeys((space.encode() for space in "\t\n\r\u1680\u2028\u200b"), " ")
    return make_charsmap(texts | dict.fromkeys((mark.encode() for mark in "\u00ad\x01\x7f"), ""))


def _unigram(normalizer: Any, splitter: Any, *, bytes_too: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=specials, unk_token="<unk>", show_progress=False)  # noqa: S106
    tokenizer.train_from_iterator([_line(seed) for seed in range(800)], trainer)
    if bytes_too:
        table = json.loads(tokenizer.to_str())
        table["model"]["byte_fallback"] = True
        table["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        tokenizer = Tokenizer.from_str(json.dumps(table))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _xlm_roberta() -> Tokenizer:
    """As the file on the hub."""
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return _unigram(normalizers.Sequence([normalizers.Precompiled(_charsmap()), spaces]), splitter)


def _converted() -> Tokenizer:
    """As transformers converts a SentencePiece model."""
    parts = [normalizers.Precompiled(_charsmap()), normalizers.Strip(left=False, right=True)]
    spaces = normalizers.Replace(Regex(" {2,}"), "▁")
    return _unigram(normalizers.Sequence([*parts, spaces]), pre_tokenizers.Metaspace())


def _albert() -> Tokenizer:
    parts = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    normalizer = normalizers.Sequence([normalizers.Replace("``", '"'), *parts, normalizers.Precompiled(_charsmap())])
    return _unigram(normalizer, pre_tokenizers.Metaspace())


def _bytes_for_unknown() -> Tokenizer:
    splitter = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return _unigram(normalizers.Precompiled(_charsmap()), splitter, bytes_too=True)


def _llama(*, bytes_too: bool = True, fuses: bool = True) -> Tokenizer:
    """BPE on characters; those that the vocabulary lacks are bytes, or unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuses, byte_fallback=bytes_too))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if bytes_too)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=specials, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator([_line(seed) for seed in range(500)], trainer)
    tokenizer.pre_tokenizer = None
    table = json.loads(tokenizer.to_str())
    table["added_tokens"] = [token for token in table["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(table))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


MADE = {
    "xlm-roberta": _xlm_roberta,
    "converted": _converted,
    "albert": _albert,
    "unigram with bytes": _bytes_for_unknown,
    "llama": _llama,
    "characters": functools.partial(_llama, bytes_too=False),
    "characters, each unknown": functools.partial(_llama, bytes_too=False, fuses=False),
}


@pytest.fixture(scope="session")
def made(bundle_with: Callable[[Any], Path]) -> Callable[[str], tuple[Tokenizer, Path]]:
    """Returns a function that makes a tokenizer and its bundle, once a run."""
    kept: dict[str, tuple[Tokenizer, Path]] = {}

    def make(name: str) -> tuple[Tokenizer, Path]:
        if name not in kept:
            tokenizer = MADE[name]()
            kept[name] = (tokenizer, bundle_with(tokenizer))
        return kept[name]

    return make


def _compare(made: tuple[Tokenizer, Path], tokens_of: Callable[..., list[list[int]]], lines: Sequence[str]) -> None:
    tokenizer, bundle = made
    for line, found in zip(lines, tokens_of(bundle, lines), strict=True):
        assert found == tokenizer.encode(line).ids, line


@pytest.mark.parametrize("name", MADE)
def test_lines_in_twelve_scripts(made: Any, tokens_of: Any, name: str) -> None:
    lines = [_line(seed) for seed in range(1000, 1400)]
    chance = random.Random(1)  # noqa: S311
    letters = [letter for line in lines for letter in line]
    lines += [f"a{''.join(chance.choices(letters, k=chance.randint(1, 40)))}" for _ in range(200)]
    _compare(made(name), tokens_of, lines)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"])), max_size=60))
def test_any_text(made: Any, tokens_of: Any, texts: list[str]) -> None:
    for name in ("converted", "llama"):
        _compare(made(name), tokens_of, [f"a{text}" for text in [*texts, ""]])


@given(
    st.dictionaries(st.text("aé\u0301汉x", min_size=1, max_size=3).map(str.encode), st.text("XYZ", max_size=3)),
    st.text("aé\u0301汉x", max_size=9),
)
def test_a_map_is_read_by_the_library_as_it_was_made(texts: dict[bytes, str], text: str) -> None:
    """Looked up by whole clusters: every character here is a cluster but the accent, which joins what is before it."""
    data = make_charsmap(texts)
    expected, at = "", 0
    while at < len(text):
        end = at + 1
        while end < len(text) and text[end] == "\u0301":
            end += 1
        pieces = [text[at:end]] if len(text[at:end].encode()) < 6 else []
        found = next((_shortest(texts, piece) for piece in pieces if _shortest(texts, piece) is not None), None)
        each = (_shortest(texts, letter) for letter in text[at:end])
        whole = "".join(letter if image is None else image for letter, image in zip(text[at:end], each, strict=True))
        expected += whole if found is None else found
        at = end
    assert normalizers.Precompiled(data).normalize_str(text) == expected
    trie, blob = split_charsmap(data)
    assert len(trie) > 0
    assert blob.count(b"\0") == len(texts)


def _shortest(texts: dict[bytes, str], text: str) -> str | None:
    """What the shortest piece that the text begins with becomes."""
    raw = text.encode()
    return next((texts[raw[:size]] for size in range(1, len(raw) + 1) if raw[:size] in texts), None)


def test_what_joins_characters_is_asked_of_the_library() -> None:
    extends, prepends, controls = (_members(found) for found in cluster_sets())
    assert {0x301, 0x200D, 0x903, 0xFE0F} <= extends
    assert 0x600 in prepends
    assert {0xA, 0xD, 0x200B} <= controls
    assert not {0x61, 0x4E2D, 0x20} & (extends | prepends | controls)


def _members(found: Any) -> set[int]:
    return {code for first, last in found for code in range(first, last + 1)}


@pytest.mark.parametrize("data", [b"", b"abc", b"\x08\0\0\0abcd", b"\x04\0\0\0abcdx", b"\x03\0\0\0abc"])
def test_a_damaged_map_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="precompiled_charsmap is damaged"):
        split_charsmap(data)
