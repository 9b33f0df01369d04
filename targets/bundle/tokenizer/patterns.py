r"""Regular expressions of tokenizers as small programs for ``pattern.c``, which backtracks as the library does.

A program is a list of 32-bit words: an operation, then its operands. What a class such as ``[^\s\p{L}]`` holds is asked
of the package tokenizers (:mod:`edgeq.targets.bundle.tokenizer.characters`), so only the structure is read here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgeq.errors import UnsupportedError
from edgeq.targets.bundle.tokenizer.characters import Ranges, matching

MATCH, CHARACTER, SET, JUMP, TRY, LOOK, LINE_START, LINE_END, BOUNDARY, TEXT_START, TEXT_END = range(11)
"""Operations; operands: character; set; address; two addresses; kind, width, address after the body; set, negated."""

_CLASS_ESCAPES = "pPsSdDwWhH"
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_LOOKS = {"?=": 0, "?!": 1, "?<=": 2, "?<!": 3}
_LONGEST_REPEAT = 64


@dataclasses.dataclass(frozen=True)
class _Node:
    """A part of an expression: how to write it, how many characters it takes (None: it varies), if it may take none."""

    emit: Callable[[Program], None]
    width: int | None
    nullable: bool


class Program:
    """Words of one or several patterns, and the character sets that they name.

    Attributes:
        words: The program; addresses count from its start.
        sets: Sets of characters, each once.
    """

    def __init__(self) -> None:
        self.words: list[int] = []
        self.sets: list[Ranges] = []

    def add_set(self, members: Ranges) -> int:
        """Returns the number of a set of characters."""
        if members not in self.sets:
            self.sets.append(members)
        return self.sets.index(members)

    def add_pattern(self, pattern: str) -> int:
        """Writes a regular expression and returns where its program starts.

        Raises:
            UnsupportedError: If the expression uses something that is not known here.
        """
        node = _Reader(pattern).read()
        if node.nullable:
            raise UnsupportedError(f"pattern {pattern!r} may match nothing")
        return self._add(node)

    def add_text(self, text: str) -> int:
        """Writes a pattern that matches exactly this text, and returns where its program starts."""
        return self._add(_sequence([_character(character) for character in text]))

    def add_characters(self, members: Ranges, *, repeated: bool = False) -> int:
        """Writes a pattern for one character of a set, or as many as follow each other."""
        number = self.add_set(members)
        node = _Node(lambda program: program.put(SET, number), 1, False)
        return self._add(_repeat(node, 1, None, lazy=False) if repeated else node)

    def put(self, *words: int) -> None:
        """Appends words."""
        self.words += words

    def _add(self, node: _Node) -> int:
        start = len(self.words)
        node.emit(self)
        self.put(MATCH)
        return start


def _character(character: str) -> _Node:
    return _Node(lambda program: program.put(CHARACTER, ord(character)), 1, False)


def _set(source: str) -> _Node:
    return _Node(lambda program: program.put(SET, program.add_set(matching(source))), 1, False)


def _anchor(*words: int) -> _Node:
    return _Node(lambda program: program.put(*words), 0, True)


def _boundary(negated: bool) -> _Node:
    return _Node(lambda program: program.put(BOUNDARY, program.add_set(matching(r"\w")), int(negated)), 0, True)


def _sequence(nodes: list[_Node]) -> _Node:
    def emit(program: Program) -> None:
        for node in nodes:
            node.emit(program)

    widths = [node.width for node in nodes]
    width = None if None in widths else sum(width for width in widths if width is not None)
    return _Node(emit, width, all(node.nullable for node in nodes))


def _either(nodes: list[_Node]) -> _Node:
    if len(nodes) == 1:
        return nodes[0]

    def emit(program: Program) -> None:
        ends = []
        for node in nodes[:-1]:
            program.put(TRY, len(program.words) + 3, 0)
            otherwise = len(program.words) - 1
            node.emit(program)
            program.put(JUMP, 0)
            ends.append(len(program.words) - 1)
            program.words[otherwise] = len(program.words)
        nodes[-1].emit(program)
        for end in ends:
            program.words[end] = len(program.words)

    width = nodes[0].width if len({node.width for node in nodes}) == 1 else None
    return _Node(emit, width, any(node.nullable for node in nodes))


def _repeat(node: _Node, least: int, most: int | None, *, lazy: bool) -> _Node:
    def branch(program: Program) -> int:
        """Writes a choice between the body, which follows, and an address that is filled in later."""
        program.put(TRY, 0, 0)
        at = len(program.words) - 2
        program.words[at + lazy] = len(program.words)
        return at + (not lazy)

    def emit(program: Program) -> None:
        for _ in range(least):
            node.emit(program)
        ends = []
        if most is None:
            start = len(program.words)
            ends.append(branch(program))
            node.emit(program)
            program.put(JUMP, start)
        else:
            for _ in range(most - least):
                ends.append(branch(program))
                node.emit(program)
        for end in ends:
            program.words[end] = len(program.words)

    width = node.width * least if most == least and node.width is not None else None
    return _Node(emit, width, least == 0 or node.nullable)


def _look(node: _Node, kind: int) -> _Node:
    def emit(program: Program) -> None:
        program.put(LOOK, kind, node.width or 0, 0)
        after = len(program.words) - 1
        node.emit(program)
        program.put(MATCH)
        program.words[after] = len(program.words)

    return _Node(emit, 0, True)


class _Reader:
    """Reads an expression in Oniguruma's Ruby syntax, as the package tokenizers does."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._any_case = False

    def read(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._pattern):
            raise self._unsupported("an unmatched ')'")
        return node

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"pattern {self._pattern!r} has {what}")

    def _take(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self._at == len(self._pattern):
            raise self._unsupported("no proper end")
        self._at += 1
        return self._pattern[self._at - 1]

    def _alternatives(self) -> _Node:
        nodes = [self._branch()]
        while self._take("|"):
            nodes.append(self._branch())
        return _either(nodes)

    def _branch(self) -> _Node:
        nodes: list[_Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            nodes.append(self._repeated(self._atom()))
        return _sequence(nodes)

    def _repeated(self, node: _Node) -> _Node:
        if self._at == len(self._pattern) or self._pattern[self._at] not in "?*+{":
            return node
        sign = self._next()
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None), "{": (0, None)}[sign]
        if sign == "{":
            least, most = self._counts()
        lazy = self._take("?")
        if self._at < len(self._pattern) and self._pattern[self._at] in "?*+{":
            raise self._unsupported("a repetition of a repetition")
        if node.nullable:
            raise self._unsupported("a repetition of what may match nothing")
        return _repeat(node, least, most, lazy=lazy)

    def _counts(self) -> tuple[int, int | None]:
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at : end].partition(",")
        if end < 0 or not low.isdigit() or not (high == "" or high.isdigit()):
            raise self._unsupported("a count that is not {n}, {n,} or {n,m}")
        self._at = end + 1
        least = int(low)
        most = (int(high) if high else None) if comma else least
        if max(least, most or 0) > _LONGEST_REPEAT or (most is not None and most < least):
            raise self._unsupported(f"a count above {_LONGEST_REPEAT} or out of order")
        return least, most

    def _atom(self) -> _Node:
        start = self._at
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            self._skip_class()
            if self._any_case:
                raise self._unsupported("a class in any case")
            return _set(self._pattern[start : self._at])
        if character == "\\":
            return self._escape(start)
        if character == ".":
            return _set(".")
        if character == "^":
            return _anchor(LINE_START)
        if character == "$":
            return _anchor(LINE_END)
        if character in "?*+{":
            raise self._unsupported(f"nothing before {character!r}")
        return self._literal(character)

    def _literal(self, character: str) -> _Node:
        """A character, in a group of any case with those that differ in that alone."""
        if not self._any_case or not (character.upper() != character or character.lower() != character):
            return _character(character)
        if not character.isascii():
            raise self._unsupported(f"{character!r} in any case")
        return _set(f"(?i:{character})")

    def _group(self) -> _Node:
        kind = next((kind for sign, kind in _LOOKS.items() if self._take(sign)), None)
        if self._take("?i:"):
            return self._group_of_any_case()
        if kind is None and not self._take("?:") and self._pattern.startswith("?", self._at):
            raise self._unsupported(f"a group (?{self._pattern[self._at + 1 : self._at + 2]}")
        node = self._alternatives()
        if not self._take(")"):
            raise self._unsupported("an unmatched '('")
        if kind is None:
            return node
        if kind >= 2 and node.width is None:
            raise self._unsupported("a look behind of several lengths")
        return _look(node, kind)

    def _group_of_any_case(self) -> _Node:
        before, self._any_case = self._any_case, True
        node = self._alternatives()
        self._any_case = before
        if not self._take(")"):
            raise self._unsupported("an unmatched '('")
        return node

    def _skip_class(self) -> None:
        self._take("^")
        self._take("]")
        while not self._take("]"):
            if self._next() == "\\":
                self._next()
            elif self._pattern[self._at - 1] == "[":
                self._skip_class()

    def _escape(self, start: int) -> _Node:
        name = self._next()
        if name in "bB":
            return _boundary(name == "B")
        if name in "Az":
            return _anchor(TEXT_START if name == "A" else TEXT_END)
        if name in "pP":
            end = self._pattern.find("}", self._at)
            if not self._take("{") or end < 0:
                raise self._unsupported(f"\\{name} without a name in braces")
            self._at = end + 1
        if name in _CLASS_ESCAPES:
            return _set(self._pattern[start : self._at])
        if name in _CONTROLS:
            return _character(_CONTROLS[name])
        if name.isalnum():
            raise self._unsupported(f"\\{name}")
        return _character(name)
