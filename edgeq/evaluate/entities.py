"""Entities in a sequence of tags, by the definition of CoNLL's script, which seqeval has as its default."""

from __future__ import annotations

from collections.abc import Sequence

Entity = tuple[str, int, int]
"""Kind, first word and last word."""

_OUTSIDE = "O"


def entities(tags: Sequence[str]) -> set[Entity]:
    """Returns the entities that tags describe.

    Tags are ``O`` or a kind behind ``B-``, ``I-``, ``E-`` or ``S-`` (IOB1, IOB2, IOE, BIOES). Tags that do not follow
    each other as their scheme asks count as CoNLL's script ``conlleval`` counts them: an ``I-`` of a new kind begins an
    entity. A tag without such a prefix is a kind in which all neighbours of it are one entity.
    """
    found: set[Entity] = set()
    start, before = 0, (_OUTSIDE, "")
    for place, tag in enumerate([*tags, _OUTSIDE]):
        after = _parts(tag)
        if _ends(before, after):
            found.add((before[1], start, place - 1))
        if _begins(before, after):
            start = place
        before = after
    return found


def _parts(tag: str) -> tuple[str, str]:
    if tag == _OUTSIDE:
        return _OUTSIDE, ""
    position, dash, kind = tag.partition("-")
    return (position, kind) if dash and position in ("B", "I", "E", "S") else ("I", tag)


def _ends(before: tuple[str, str], after: tuple[str, str]) -> bool:
    """Whether an entity ends between two tags."""
    if before[0] == _OUTSIDE:
        return False
    return before[0] in ("E", "S") or after[0] in (_OUTSIDE, "B", "S") or before[1] != after[1]


def _begins(before: tuple[str, str], after: tuple[str, str]) -> bool:
    """Whether an entity begins with the second of two tags."""
    if after[0] == _OUTSIDE:
        return False
    return after[0] in ("B", "S") or before[0] in (_OUTSIDE, "E", "S") or before[1] != after[1]
