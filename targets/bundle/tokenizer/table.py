"""Writes ``tokenizer.bin``: a ``tokenizer.json`` as tables that ``edgeq-run`` maps and searches."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.tokenizer_files import check_tokenizer_json
from edgeq.targets.bundle.tokenizer.characters import TEXT
from edgeq.targets.bundle.tokenizer.frames import read_frames, trimming
from edgeq.targets.bundle.tokenizer.joins import read_joins
from edgeq.targets.bundle.tokenizer.layout import (
    BYTE_PAIRS,
    CHARACTER_PAIRS,
    LEFT,
    MARK,
    NORMALIZED,
    RIGHT,
    SINGLE_WORD,
    UNIGRAM,
    UNKNOWN_PENALTY,
    WHOLE_WORDS,
    WORD_PIECES,
    ModelSettings,
    Rows,
    TokenizerFile,
)
from edgeq.targets.bundle.tokenizer.marian import MARIAN_VOCABULARY, marian_tokenizer
from edgeq.targets.bundle.tokenizer.roles import NONE, read_roles, tokenizer_settings
from edgeq.targets.bundle.tokenizer.steps import Steps

MAGIC_OF_A_REASON = b"EQTOKEN0"


def write_tokenizer(source: Path, out: Path, *, names: bool = True, lower_case: bool = True) -> None:
    """Translates a tokenizer for ``edgeq-run``.

    One that ``edgeq-run`` does not know is translated into the reason, which it says when it is asked to use it.

    Args:
        source: A ``tokenizer.json``, or the ``vocab.json`` of a Marian tokenizer; the ``tokenizer_config.json`` beside
            it says which tokens have a part to play.
        out: File to write.
        names: Keep the names of tokens, which models need that speak of single tokens.
        lower_case: Keep what letters become in lower case, which models need that compare texts.

    Raises:
        FormatError: If the file is no tokenizer.
    """
    try:
        if source.name == MARIAN_VOCABULARY:
            data = marian_tokenizer(source.parent, names=names).to_bytes()
        else:
            data = _translated(source, names=names, lower_case=lower_case)
    except UnsupportedError as error:
        data = MAGIC_OF_A_REASON + str(error).encode("utf-8")
    out.write_bytes(data)


def _translated(source: Path, *, names: bool, lower_case: bool) -> bytes:
    from tokenizers import Tokenizer

    check_tokenizer_json(source)
    try:
        tokenizer = Tokenizer.from_file(str(source))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{source} is no valid tokenizer ({error}); export the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # As the library writes it: files of other versions leave things out, or write them in other ways.
    return _tables(json.loads(tokenizer.to_str()), tokenizer, source.parent, names=names, lower_case=lower_case)


def reason_of(path: Path) -> str | None:
    """Returns why ``edgeq-run`` does not know the tokenizer of a file of :func:`write_tokenizer`; None if it does."""
    content = path.read_bytes()
    if not content.startswith(MAGIC_OF_A_REASON):
        return None
    return content.removeprefix(MAGIC_OF_A_REASON).decode("utf-8")


def _tables(table: dict[str, Any], tokenizer: Any, folder: Path, *, names: bool, lower_case: bool) -> bytes:
    steps = Steps()
    steps.add_normalizer(table["normalizer"])
    steps.add_splitter(table["pre_tokenizer"])
    single, pair = read_frames(table, tokenizer)
    kind, rows = _model(table, steps)
    added = _added_tokens(table, tokenizer, steps)
    tokens = _decoded(tokenizer, steps, table, kind)
    model = table["model"]
    scores = [score for _, score in model["vocab"]] if kind == UNIGRAM else []
    joins = read_joins(table["decoder"], steps) if names else None
    roles = [*read_roles(folder, tokenizer), *_counting(table), int(joins is not None), *_sides(folder)]
    numbers = range(_size(tokenizer) if names else 0)
    listed = [steps.add_string((tokenizer.id_to_token(number) or "").encode("utf-8")) for number in numbers]
    return TokenizerFile(
        steps=steps,
        model=ModelSettings(
            kind=kind,
            unknown=_unknown(model, kind),
            longest_word=model.get("max_input_chars_per_word") or 0,
            whole_words_first=bool(model.get("ignore_merges")),
            byte_fallback=bool(model.get("byte_fallback")),
            fuses_unknown=bool(model.get("fuse_unk", kind == UNIGRAM)),
            drops_first_space=int(kind == UNIGRAM),
            unknown_score=min(scores) - UNKNOWN_PENALTY if scores else 0.0,
        ),
        tokens=tokens,
        rows=rows,
        scores=_sorted_scores(rows[0], scores),
        added=added,
        roles=roles,
        names=listed,
        special=sorted(token["id"] for token in table["added_tokens"] if token["special"]),
        single=single,
        pair=pair,
        joins=joins or [],
        lower=_lower_case(steps) if lower_case else [],
    ).to_bytes()


def _token(model: dict[str, Any], content: str | None) -> int:
    """Number of a token, or NONE."""
    return NONE if content is None else int(model["vocab"].get(content, NONE))


def _unknown(model: dict[str, Any], kind: int) -> int:
    if kind == UNIGRAM:
        return NONE if model.get("unk_id") is None else int(model["unk_id"])
    return _token(model, model.get("unk_token"))


def _sorted_scores(words: Rows, scores: Sequence[float]) -> list[float]:
    """Scores of a Unigram's tokens in the order of its words."""
    return [scores[row[-1]] for row in words] if scores else []


def _model(table: dict[str, Any], steps: Steps) -> tuple[int, tuple[Rows, Rows, Rows, Rows]]:
    """Returns the kind of model, and words, pieces inside words, merges and single bytes."""
    model = table["model"]
    vocabulary = model.get("vocab")
    if model.get("type") == "Unigram":
        return UNIGRAM, _unigram(model, steps)
    if not isinstance(vocabulary, dict):
        raise UnsupportedError(f"model {model.get('type')}")
    kind = model["type"]
    if kind == "BPE":
        if _has_byte_level(table):
            return BYTE_PAIRS, _byte_pairs(table, model, steps)
        return CHARACTER_PAIRS, _character_pairs(model, steps)
    if kind == "WordLevel":
        return WHOLE_WORDS, (_sorted_words(steps, vocabulary), [], [], [])
    if kind != "WordPiece":
        raise UnsupportedError(f"model {kind}")
    prefix = model["continuing_subword_prefix"]
    inside = {text.removeprefix(prefix): number for text, number in vocabulary.items() if text.startswith(prefix)}
    return WORD_PIECES, (_sorted_words(steps, vocabulary), _sorted_words(steps, inside), [], [])


def _sorted_words(steps: Steps, vocabulary: dict[str, int]) -> Rows:
    words = sorted((text.encode("utf-8"), number) for text, number in vocabulary.items() if text)
    return [(*steps.add_string(text), number) for text, number in words]


def _unigram(model: dict[str, Any], steps: Steps) -> tuple[Rows, Rows, Rows, Rows]:
    vocabulary = {text: number for number, (text, _) in enumerate(model["vocab"])}
    return _sorted_words(steps, vocabulary), [], [], _fallback_bytes(model, vocabulary)


def _character_pairs(model: dict[str, Any], steps: Steps) -> tuple[Rows, Rows, Rows, Rows]:
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UnsupportedError(f"model BPE with {name}")
    vocabulary = model["vocab"]
    return _sorted_words(steps, vocabulary), [], _merges(model), _fallback_bytes(model, vocabulary)


def _fallback_bytes(model: dict[str, Any], vocabulary: dict[str, int]) -> Rows:
    """Tokens of the bytes that stand for a character without a token; none if the model has no such tokens."""
    if not model.get("byte_fallback"):
        return []
    return [[vocabulary.get(f"<0x{byte:02X}>", NONE) for byte in range(256)]]


def _merges(model: dict[str, Any]) -> Rows:
    vocabulary = model["vocab"]
    merges = []
    for rank, (left, right) in enumerate(model["merges"]):
        merges.append((vocabulary[left], vocabulary[right], rank, vocabulary[left + right]))
    return sorted(merges)


def _byte_pairs(table: dict[str, Any], model: dict[str, Any], steps: Steps) -> tuple[Rows, Rows, Rows, Rows]:
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise UnsupportedError(f"model BPE with {name}")
    if not _is_byte_level(table):
        raise UnsupportedError("model BPE on characters rather than bytes")
    vocabulary, letters = model["vocab"], byte_letters()
    single = [vocabulary.get(letters[byte], NONE) for byte in range(256)]
    if NONE in single and model.get("unk_token") is not None:
        raise UnsupportedError("model BPE without some bytes, for which it has an unknown token")
    of_letter = {letter: byte for byte, letter in letters.items()}
    whole: Rows = []
    if model.get("ignore_merges"):
        words = {text: number for text, number in vocabulary.items() if all(letter in of_letter for letter in text)}
        raw = sorted((bytes(of_letter[letter] for letter in text), number) for text, number in words.items())
        whole = [(*steps.add_string(text), number) for text, number in raw]
    return whole, [], _merges(model), [single]


def _has_byte_level(table: dict[str, Any]) -> bool:
    """Tells whether texts become bytes before the model."""
    before = table["pre_tokenizer"] or {}
    return any(part.get("type") == "ByteLevel" for part in before.get("pretokenizers", [before]))


def _is_byte_level(table: dict[str, Any]) -> bool:
    """Tells whether texts become bytes before the model and tokens become texts from bytes after it."""
    before = table["pre_tokenizer"] or {}
    parts = before.get("pretokenizers", [before])
    return (table["decoder"] or {}).get("type") == "ByteLevel" and parts[-1].get("type") == "ByteLevel"


def byte_letters() -> dict[int, str]:
    """Returns the letter that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable}
    return {**letters, **{byte: chr(256 + at) for at, byte in enumerate(others)}}


def _decoded(tokenizer: Any, steps: Steps, table: dict[str, Any], kind: int) -> Rows:
    """Bytes of every token by number, for models that write; special tokens have none, since they are left out."""
    if kind in (WORD_PIECES, WHOLE_WORDS):
        return []
    if kind in (UNIGRAM, CHARACTER_PAIRS):
        return _decoded_pieces(tokenizer, steps, table)
    of_letter = {letter: byte for byte, letter in byte_letters().items()}
    special = {token["id"] for token in table["added_tokens"] if token["special"]}
    rows = []
    for number in range(tokenizer.get_vocab_size()):
        text = "" if number in special else tokenizer.id_to_token(number) or ""
        if all(letter in of_letter for letter in text):
            rows.append(steps.add_string(bytes(of_letter[letter] for letter in text)))
        else:
            rows.append(steps.add_string(text.encode("utf-8")))
    return rows


def _decoded_pieces(tokenizer: Any, steps: Steps, table: dict[str, Any]) -> Rows:
    """Bytes of every token of SentencePiece's: spaces for its mark, and the byte of a token that stands for one."""
    special = {token["id"] for token in table["added_tokens"] if token["special"]}
    rows = []
    for number in range(tokenizer.get_vocab_size()):
        text = "" if number in special else tokenizer.id_to_token(number) or ""
        byte = re.fullmatch("<0x([0-9A-F]{2})>", text) if table["model"].get("byte_fallback") else None
        rows.append(steps.add_string(bytes.fromhex(byte[1]) if byte else text.replace(MARK, " ").encode("utf-8")))
    return rows


def _added_tokens(table: dict[str, Any], tokenizer: Any, steps: Steps) -> Rows:
    rows = []
    for token in table["added_tokens"]:
        content = token["content"]
        if token["normalized"] and tokenizer.normalizer is not None:
            content = tokenizer.normalizer.normalize_str(content)
        flags = LEFT * token["lstrip"] | RIGHT * token["rstrip"] | SINGLE_WORD * token["single_word"]
        flags |= NORMALIZED * token["normalized"]
        if content:
            rows.append((*steps.add_string(content.encode("utf-8")), token["id"], flags))
    return rows


def _lower_case(steps: Steps) -> Rows:
    """What becomes of each character in lower case, as mappings."""
    return [(code, code, TEXT, *steps.add_string(text)) for code, text in _lower_cases()]


@functools.cache
def _lower_cases() -> tuple[tuple[int, bytes], ...]:
    changed = ((code, chr(code).lower()) for code in range(0x110000) if chr(code).lower() != chr(code))
    return tuple((code, text.encode("utf-8")) for code, text in changed)


def _size(tokenizer: Any) -> int:
    """Numbers that tokens may have."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _counting(table: dict[str, Any]) -> list[int]:
    """How places of tokens are counted, and whether tokens tell that they continue a word."""
    trims, adds_space = trimming(table, byte_level=_has_byte_level(table))
    return [int(trims), int(adds_space), int(bool(table["model"].get("continuing_subword_prefix")))]


def _sides(folder: Path) -> list[int]:
    """Whether texts of tokens lose spaces before punctuation, and whether a context comes before its question."""
    settings = tokenizer_settings(folder)
    return [int(bool(settings.get("clean_up_tokenization_spaces"))), int(settings.get("padding_side") == "left")]
