"""Tokens of ``edgeq-run`` are those of the package tokenizers, on words, odd bytes and the corners of Unicode."""

import random
import re
import struct
import subprocess

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CORNERS = [
    "plain words, and punctuation! (as it is) -- don't won't I'll we've he'd I'm you're it's",
    "  leading and   many   spaces   trailing  ",
    "tab\there, no-break\u00a0space, thin\u2009space, line\u2028separator, zero\u200bwidth, \ufeffmark",
    "soft\u00adhyphen",
    "Café CAFÉ cafe\u0301 ÀÉÎÕÜ Straße İstanbul ıI ǅ ﬁ ﬂ Å Å Ω Ω ſ K",
    "marks: q\u0307\u0323 q\u0323\u0307 a\u0345\u0323 \u1d15f\U0001d15f\U0001d160 \u302e\U0001d165 x\u20dd",
    "汉字和かなカナ 한국어 텍스트 각 각 漢字かな混じり文。「引用」、終わり",
    "emoji 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ☺️ 1️⃣ \U0001f9ff and \U0001fae8",
    "العربية مُحَمَّد עִבְרִית हिन्दी தமிழ் ไทย ខ្មែរ བོད་",
    "private \ue000 \U000f0000 unassigned \u0378 \U0003ffff noncharacter \ufdd0 \U0010ffff",
    "controls \x01\x02\x1f\x7f\x80\x85\x9f and \x1c\x1d\x1e\x0b\x0c feeds",
    "digits 123 ٣٤٥ ४५ ½ ² Ⅷ ① 12,345.67 1e-9 0x1F",
    "math ∑∫√ ≠ ≤ currency £5 €6 $7 ¢ ₿ sections § ¶ quotes «» “” ‘’ … – —",
    "a" * 300 + " " + "ab" * 150 + " " + "é" * 101 + " " + "汉" * 99,
    "<unk> [MASK] [CLS]x[SEP] <mask> x <mask>y <s></s> <|endoftext|>end <pad>",
    "!!!???...,,,;;; '''\"\"\" ((())) @@@ ### $$$ %%% ^^^ &&& *** ___ +++ === ~~~ ``` ||| \\\\\\ ///",
    "a @-@ b @,@ c @.@ d , e . ( f ) [ g ] ; h : i ! j ? k % l ' s 't £ 5",
    "x",
    "\u0301",
    "'",
    "'s",
]


def word_pieces(**options):
    """A BERT tokenizer whose words are pieces of the corners."""
    letters = sorted({character for line in CORNERS for character in line.lower() if character > " "} - set("é汉"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words += ["plain", "word", "##s", "and", "##ing", "don", "cafe", "##fe", "ab", "##ab", "##abab", "한국", "##국어"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def byte_pairs(*, specials=("<|endoftext|>",), prefix_space=False):
    """A byte-level BPE tokenizer trained on the corners."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORNERS * 3, trainer)
    return tokenizer


def split_byte_pairs():
    """As GPT-2 of the zoo: replacements with looks around, an own pattern, and tokens with spaces before them."""
    tokenizer = byte_pairs(specials=("<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True), "<unk>"))
    pattern = r"'(?:s|t|re|ve|d|ll|m)\b| ?<unk>| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(" @-@ ", "-"),
            normalizers.Replace(Regex(r" (?=[,.;:!?%)\]](?:[\s\"]|$))"), ""),
            normalizers.Replace(Regex(r"(?<=[(\[]) | ?(?<=[$£€]) (?=\d)"), ""),
            normalizers.Replace(Regex(r"^a{2,}?|\Bz\b|(?<!b)q"), "é"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def whole_words():
    """Words as they are, between anything else, with tokens that only stand alone."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "and": 1, "plain": 2, "a": 3, "x": 4}, unk_token="?"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("-", "removed")]
    )
    tokenizer.add_tokens([AddedToken("Plain", single_word=True, rstrip=True), AddedToken("it", single_word=True)])
    return tokenizer


MADE = {
    "word pieces": word_pieces,
    "word pieces with case": lambda: word_pieces(lowercase=False),
    "word pieces with case and accents": lambda: word_pieces(lowercase=True, strip_accents=False, clean_text=False),
    "byte pairs": byte_pairs,
    "byte pairs after a space": lambda: byte_pairs(prefix_space=True),
    "byte pairs of an own pattern": split_byte_pairs,
    "whole words": whole_words,
}


def _differing(tokenizer, bundle, tokens_of, lines):
    found = tokens_of(bundle, lines)
    expected = [tokenizer.encode(line).ids for line in lines]
    assert len(found) == len(expected)
    return [(line, ids, wanted) for line, ids, wanted in zip(lines, found, expected, strict=True) if ids != wanted]


@pytest.fixture(scope="session")
def made(bundle_with):
    """Returns a function that makes a tokenizer and its bundle, once a run."""
    kept = {}

    def make(name):
        if name not in kept:
            tokenizer = MADE[name]()
            kept[name] = (tokenizer, bundle_with(tokenizer))
        return kept[name]

    return make


@pytest.mark.parametrize("name", MADE)
def test_tokens_are_those_of_the_library(made, tokens_of, name):
    chance = random.Random(5)  # noqa: S311
    characters = [character for line in CORNERS for character in line]
    mixed = ["".join(chance.choices(characters, k=chance.randint(1, 40))) for _ in range(400)]
    lines = [line for line in [*CORNERS, *mixed] if line.strip(" \t\r\v\f")]
    assert _differing(*made(name), tokens_of, lines) == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"])), max_size=60))
def test_tokens_of_any_text(made, tokens_of, texts):
    lines = [f"a{text}" for text in [*texts, ""]]
    for name in ("word pieces", "byte pairs of an own pattern"):
        assert _differing(*made(name), tokens_of, lines) == []


@pytest.mark.parametrize(
    ("section", "words", "message"),
    [
        (11, (1, 0), "a pattern refers to what is not there"),  # ends in an operand that looks like an end
        (9, (7, 9999), "a set of characters lies outside of it"),
        (0, (0, 999), "it lacks a set"),
    ],
)
def test_tables_that_point_outside_are_refused(made, bundle_with, sanitized, section, words, message):
    """The last two words of a section are replaced; the file is whole otherwise."""
    data = bytearray((made("byte pairs")[1] / "tokenizer.bin").read_bytes())
    place, size = struct.unpack_from("<2I", data, 8 + 8 * section)
    struct.pack_into("<2I", data, place + size - 8, *words)
    result = subprocess.run(
        [sanitized, bundle_with(bytes(data)), "--text", "a b", "--tokens"],
        capture_output=True,
        text=True,
        check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert result.returncode == 1, result
    assert message in result.stderr


SPLIT_FRAME = processors.TemplateProcessing(single="$A $A", special_tokens=[])
LATE_TYPE = processors.TemplateProcessing(single="$A:2", special_tokens=[])


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"normalizer": normalizers.Nmt()}, "normalizer Nmt"),
        ({"pre_tokenizer": pre_tokenizers.UnicodeScripts()}, "pre-tokenizer UnicodeScripts"),
        ({"pre_tokenizer": pre_tokenizers.Split("a", "merged_with_next")}, "Split with behavior MergedWithNext"),
        ({"pre_tokenizer": pre_tokenizers.Punctuation("contiguous")}, "pre-tokenizer Punctuation"),
        ({"decoder": decoders.WordPiece()}, "model BPE on characters rather than bytes"),
        ({"pre_tokenizer": pre_tokenizers.Split(Regex(r"(?m:a)"), "removed")}, r"a group \(\?m"),
        ({"pre_tokenizer": pre_tokenizers.Split(Regex(r"(?i:[ab])"), "removed")}, "a class in any case"),
        ({"post_processor": SPLIT_FRAME}, "a post-processor that does more than put tokens before and after"),
        ({"post_processor": LATE_TYPE}, "a post-processor that gives tokens the type 2"),
        ({"pre_tokenizer": pre_tokenizers.Split(Regex(r"a*"), "removed")}, "may match nothing"),
        ({"pre_tokenizer": pre_tokenizers.Split(Regex(r"a++"), "removed")}, "a repetition of a repetition"),
    ],
)
def test_other_tokenizers_are_refused_with_the_reason(bundle_with, sanitized, part, reason):
    tokenizer = byte_pairs()
    for name, value in part.items():
        setattr(tokenizer, name, value)
    result = subprocess.run(
        [sanitized, bundle_with(tokenizer), "--text", "a", "--tokens"],
        capture_output=True,
        text=True,
        check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert result.returncode == 2
    assert "line 1 of the texts needs a tokenizer, but" in result.stderr
    assert re.search(reason, result.stderr), result.stderr
