"""What stands around the tokens of a text or a pair, from the post-processor of a ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeq.errors import UnsupportedError

TOKEN, FIRST, SECOND = range(3)
"""Kinds of items: a special token, the tokens of the first text, those of the second."""
Frame = list[tuple[int, int, int]]
"""Items of a row in order: kind, number of the token, and the type that its tokens have."""

_TEXTS = ("the", "0 a"), ("a b", "c")
_FRAMING = ("BertProcessing", "RobertaProcessing", "TemplateProcessing")
_LARGEST_TYPE = 1
_SPACE = "\u0120"
"""A space as byte-level tokens have it."""


def read_frames(table: dict[str, Any], tokenizer: Any) -> tuple[Frame, Frame]:
    """Returns the frames of one text and of two.

    Args:
        table: The contents of a ``tokenizer.json``.
        tokenizer: The same, as a ``tokenizers.Tokenizer`` that neither cuts off nor pads.

    Returns:
        The frames; that of two texts is empty if it does not hold both, once each.

    Raises:
        UnsupportedError: If the post-processor does more than put tokens around texts.
    """
    framing = [part for part in _parts(table["post_processor"]) if part["type"] in _FRAMING]
    if len(framing) > 1:
        raise UnsupportedError("a post-processor that puts tokens around texts twice")
    single, pair = _frames_of(framing[0]) if framing else ([(FIRST, 0, 0)], [(FIRST, 0, 0), (SECOND, 0, 1)])
    if [item[0] for item in single if item[0] != TOKEN] != [FIRST] or _differs(single, tokenizer, texts=1):
        raise UnsupportedError("a post-processor that does more than put tokens before and after")
    knows_pairs = sorted(item[0] for item in pair if item[0] != TOKEN) == [FIRST, SECOND]
    if knows_pairs and _differs(pair, tokenizer, texts=2):
        raise UnsupportedError("a post-processor that does more than put tokens around pairs")
    return single, pair if knows_pairs else []


def trimming(table: dict[str, Any], *, byte_level: bool) -> tuple[bool, bool]:
    """Returns whether places of tokens leave out spaces at their ends, and whether the text's first one is counted.

    Raises:
        UnsupportedError: If that happens twice, or with tokens that do not stand for bytes.
    """
    parts = [part for part in _parts(table["post_processor"]) if part.get("trim_offsets")]
    if not parts or (not byte_level and _has_no_spaces(table)):
        return False, False
    if len(parts) > 1 or not byte_level:
        raise UnsupportedError("a post-processor that trims places in another way than ByteLevel")
    return True, bool(parts[0]["add_prefix_space"])


def _has_no_spaces(table: dict[str, Any]) -> bool:
    """Tells whether no token begins or ends with what is trimmed: MPNet has WordPiece in RoBERTa's frame.

    Other models than these two give unknown characters as tokens of their own.
    """
    if table["model"]["type"] not in ("WordPiece", "WordLevel"):
        return False
    tokens = [*table["model"]["vocab"], *(str(token["content"]) for token in table["added_tokens"])]
    return all(token == token.strip().strip(_SPACE) for token in tokens)


def _parts(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    if processor["type"] == "Sequence":
        return [part for inner in processor["processors"] for part in _parts(inner)]
    if processor["type"] not in (*_FRAMING, "ByteLevel"):
        raise UnsupportedError(f"post-processor {processor['type']}")
    return [processor]


def _frames_of(processor: dict[str, Any]) -> tuple[Frame, Frame]:
    if processor["type"] == "TemplateProcessing":
        return _template(processor, "single"), _template(processor, "pair")
    start, end = (TOKEN, processor["cls"][1], 0), (TOKEN, processor["sep"][1], 0)
    single = [start, (FIRST, 0, 0), end]
    if processor["type"] == "RobertaProcessing":
        return single, [*single, end, (SECOND, 0, 0), end]
    return single, [*single, (SECOND, 0, 1), (TOKEN, end[1], 1)]


def _template(processor: dict[str, Any], name: str) -> Frame:
    frame: Frame = []
    for item in processor[name]:
        ((kind, value),) = item.items()
        if value["type_id"] > _LARGEST_TYPE:
            raise UnsupportedError(f"a post-processor that gives tokens the type {value['type_id']}")
        if kind == "Sequence":
            frame.append((FIRST if value["id"] == "A" else SECOND, 0, value["type_id"]))
        else:
            frame += [(TOKEN, token, value["type_id"]) for token in processor["special_tokens"][value["id"]]["ids"]]
    return frame


def _differs(frame: Frame, tokenizer: Any, *, texts: int) -> bool:
    """Tells whether the library makes other rows than the frame does."""
    for given in _TEXTS:
        bare = [tokenizer.encode(text, add_special_tokens=False).ids for text in given[:texts]]
        found = tokenizer.encode(*given[:texts])
        if list(zip(found.ids, found.type_ids, strict=True)) != _framed(frame, bare):
            return True
    return False


def _framed(frame: Frame, texts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    tokens: list[tuple[int, int]] = []
    for kind, token, row_type in frame:
        tokens += [(one, row_type) for one in ([token] if kind == TOKEN else texts[kind - FIRST])]
    return tokens
