"""How the names of tokens become text again, from the decoder of a ``tokenizer.json``."""

from __future__ import annotations

from typing import Any

from edgeq.targets.bundle.tokenizer.steps import Steps

PIECES, BYTES, MARKS, REPLACE, BYTE_TOKENS, FUSE, STRIP = range(7)
"""Kinds of steps; ``Join`` in ``targets/libedgeq/library/tokenizer_table.h`` describes their operands."""


def read_joins(decoder: dict[str, Any] | None, steps: Steps) -> list[tuple[int, int, int, int]] | None:
    """Returns the steps of a decoder, none for one that puts spaces between tokens; None if it is not known.

    Args:
        decoder: As ``tokenizer.json`` describes it.
        steps: Takes the strings.
    """
    if decoder is None:
        return []
    if decoder["type"] != "Sequence":
        step = _step(decoder, steps)
        return None if step is None else [step]
    found = [read_joins(part, steps) for part in decoder["decoders"]]
    return None if None in found else [step for part in found for step in part or []]


def _step(decoder: dict[str, Any], steps: Steps) -> tuple[int, int, int, int] | None:
    kind = decoder["type"]
    if kind == "WordPiece":
        return PIECES, *steps.add_string(decoder["prefix"].encode("utf-8")), int(decoder["cleanup"])
    if kind == "Metaspace":
        drops = decoder.get("prepend_scheme", "always") != "never"
        return MARKS, *steps.add_string(decoder["replacement"].encode("utf-8")), int(drops)
    if kind == "Replace" and "String" in decoder["pattern"] and len(decoder["content"]) <= 1:
        content = ord(decoder["content"]) if decoder["content"] else 0
        return REPLACE, *steps.add_string(decoder["pattern"]["String"].encode("utf-8")), content
    if kind == "Strip":
        return STRIP, ord(decoder["content"]), decoder["start"], decoder["stop"]
    plain = {"ByteLevel": BYTES, "ByteFallback": BYTE_TOKENS, "Fuse": FUSE}
    return (plain[kind], 0, 0, 0) if kind in plain else None
