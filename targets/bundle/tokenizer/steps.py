"""Normalizers and pre-tokenizers of a ``tokenizer.json`` as steps that ``edgeq-run`` takes one after the other."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.targets.bundle.tokenizer.characters import (
    Mapping,
    Ranges,
    combining_classes,
    compositions,
    mappings,
    separating,
)
from edgeq.targets.bundle.tokenizer.charsmap import stripped
from edgeq.targets.bundle.tokenizer.patterns import Program

MAP, REPLACE, SPLIT, PREFIX_SPACE, CHARSMAP, STRIP, PREPEND, METASPACE, COMPOSE = range(9)
"""Kinds of steps. Operands: first mapping, mappings, whether marks are ordered; program, text's place and size;
program, :data:`ISOLATED` or :data:`REMOVED`, whether what does not match is meant; none; none; whether the left and the
right end is meant, set of characters; text's place and size; text's place and size, :data:`PREPENDS` and so on; first
mapping, mappings."""
ISOLATED, REMOVED = range(2)
PREPENDS, CUTS, AT_START = 1, 2, 4
"""What ``METASPACE`` does besides replacing spaces: one more in front, a cut before each; the former at the start of
the whole text only."""

_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern that the pre-tokenizer ``ByteLevel`` has built in."""
_BY_CHARACTER = ("BertNormalizer", "Lowercase", "NFD", "NFKD", "StripAccents")
_BEHAVIOURS = {"Isolated": ISOLATED, "Removed": REMOVED}


@dataclasses.dataclass
class Steps:
    """Steps and what they refer to.

    Attributes:
        program: Patterns and character sets.
        strings: Bytes that others point into.
        normalizers: Steps that change a text, four words each.
        splitters: Steps that cut it, four words each.
        mappings: What normalizers make of characters.
        combining: Marks in canonical order, with their classes.
        charsmap: SentencePiece's map of texts; empty if there is none.
        compositions: Pairs of characters that become one, with that, sorted; empty if no step composes.
    """

    program: Program = dataclasses.field(default_factory=Program)
    strings: bytearray = dataclasses.field(default_factory=bytearray)
    normalizers: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    splitters: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    mappings: list[Mapping] = dataclasses.field(default_factory=list)
    combining: Sequence[tuple[int, int]] = ()
    charsmap: bytes = b""
    compositions: Sequence[tuple[int, int, int]] = ()
    _places: dict[bytes, int] = dataclasses.field(default_factory=dict)

    def add_string(self, text: bytes) -> tuple[int, int]:
        """Stores bytes and returns their place and size."""
        if text not in self._places:
            self._places[text] = len(self.strings)
            self.strings += text
        return self._places[text], len(text)

    def add_normalizer(self, table: dict[str, Any] | None) -> None:
        """Adds the steps of a normalizer as ``tokenizer.json`` describes it.

        Raises:
            UnsupportedError: If there is no such step.
        """
        if table is None:
            return
        if table["type"] == "Sequence":
            for part in table["normalizers"]:
                self.add_normalizer(part)
        elif table["type"] == "Replace":
            place, size = self.add_string(table["content"].encode("utf-8"))
            self.normalizers.append((REPLACE, self._pattern(table["pattern"]), place, size))
        elif table["type"] in _BY_CHARACTER:
            self._add_mappings(table)
        elif table["type"] in ("NFC", "NFKC"):
            self._add_composing(table["type"])
        elif table["type"] == "Precompiled":
            self._add_charsmap(table)
        elif table["type"] == "Strip":
            ends = (int(table["strip_left"]), int(table["strip_right"]))
            self.normalizers.append((STRIP, *ends, self.program.add_set(stripped())))
        elif table["type"] == "Prepend":
            self.normalizers.append((PREPEND, *self.add_string(table["prepend"].encode("utf-8")), 0))
        else:
            raise UnsupportedError(f"normalizer {table['type']}")

    def add_splitter(self, table: dict[str, Any] | None) -> None:
        """Adds the steps of a pre-tokenizer as ``tokenizer.json`` describes it.

        Raises:
            UnsupportedError: If there is no such step.
        """
        if table is None:
            return
        if table["type"] == "Sequence":
            for part in table["pretokenizers"]:
                self.add_splitter(part)
        elif table["type"] == "Split":
            if table["behavior"] not in _BEHAVIOURS:
                raise UnsupportedError(f"pre-tokenizer Split with behavior {table['behavior']}")
            behaviour = _BEHAVIOURS[table["behavior"]]
            self._split(self._pattern(table["pattern"]), behaviour, outside=table["invert"])
        elif table["type"] == "ByteLevel":
            self._add_byte_level(table)
        elif table["type"] in ("BertPreTokenizer", "WhitespaceSplit"):
            self._separate(table["type"])
        elif table["type"] == "Digits":
            self._separate("Digits", runs=not table["individual_digits"], individual_digits=True)
        elif table["type"] == "Punctuation" and table.get("behavior", "Isolated") == "Isolated":
            self._separate("Punctuation")
        elif table["type"] == "Metaspace":
            self._add_metaspace(table)
        elif table["type"] == "Whitespace":
            self._split(self.program.add_pattern(r"\w+|[^\w\s]+"), REMOVED, outside=True)
        else:
            raise UnsupportedError(f"pre-tokenizer {table['type']}")

    def _add_byte_level(self, table: dict[str, Any]) -> None:
        if table["add_prefix_space"]:
            self.splitters.append((PREFIX_SPACE, 0, 0, 0))
        if table.get("use_regex", True):
            self._split(self.program.add_pattern(_BYTE_LEVEL), ISOLATED)

    def _add_metaspace(self, table: dict[str, Any]) -> None:
        schemes = {"always": PREPENDS, "never": 0, "first": PREPENDS | AT_START}
        scheme = table.get("prepend_scheme", "always")
        if scheme not in schemes:
            raise UnsupportedError(f"pre-tokenizer Metaspace with prepend_scheme {scheme}")
        does = schemes[scheme] | (CUTS if table.get("split", True) else 0)
        self.splitters.append((METASPACE, *self.add_string(table["replacement"].encode("utf-8")), does))

    def _add_charsmap(self, table: dict[str, Any]) -> None:
        data = base64.b64decode(table["precompiled_charsmap"] or "")
        if self.charsmap:
            raise UnsupportedError("two normalizers Precompiled")
        if data:
            self.charsmap = data
            self.normalizers.append((CHARSMAP, 0, 0, 0))

    def _pattern(self, table: dict[str, str]) -> int:
        if "Regex" in table:
            return self.program.add_pattern(table["Regex"])
        return self.program.add_text(table["String"])

    def _split(self, program: int, behaviour: int, *, outside: bool = False) -> None:
        self.splitters.append((SPLIT, program, behaviour, int(outside)))

    def _separate(self, name: str, *, runs: bool = False, **arguments: Any) -> None:
        """Cuts where a pre-tokenizer does that decides character by character; ``runs`` keeps what follows together."""
        dropped, alone = _separated(name, tuple(sorted(arguments.items())))
        if dropped:
            self._split(self.program.add_characters(dropped, repeated=True), REMOVED)
        if alone:
            self._split(self.program.add_characters(alone, repeated=runs), ISOLATED)

    def _add_composing(self, name: str) -> None:
        found, self.combining = _maps(json.dumps({"type": name.replace("C", "D")}))
        self.compositions = compositions()
        self.normalizers.append((COMPOSE, len(self.mappings), len(found), 0))
        self.mappings += found

    def _add_mappings(self, table: dict[str, Any]) -> None:
        found, combining = _maps(json.dumps(table, sort_keys=True))
        if combining:
            self.combining = combining
        self.normalizers.append((MAP, len(self.mappings), len(found), int(bool(combining))))
        self.mappings += found


@functools.lru_cache(maxsize=64)
def _maps(described: str) -> tuple[Sequence[Mapping], Sequence[tuple[int, int]]]:
    """What a normalizer makes of characters, and the marks that it orders; asking it takes most of a second.

    Args:
        described: The normalizer as ``tokenizer.json`` describes it.
    """
    from tokenizers import normalizers

    table = json.loads(described)
    normalize = getattr(normalizers, table.pop("type"))(**table).normalize_str
    return tuple(mappings(normalize)), tuple(combining_classes(normalize))


@functools.lru_cache(maxsize=64)
def _separated(name: str, arguments: tuple[tuple[str, Any], ...]) -> tuple[Ranges, Ranges]:
    """:func:`separating` for a pre-tokenizer by its name."""
    from tokenizers import pre_tokenizers

    return separating(getattr(pre_tokenizers, name)(**dict(arguments)))
