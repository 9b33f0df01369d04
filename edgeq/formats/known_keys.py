"""JSON files that decide a result: every key is understood, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.json_file import read_json_object

_MOST_DIMENSIONS = 1 << 20


class KnownKeys:
    """A JSON object whose keys are taken one by one; :meth:`close` refuses those that nobody took.

    A list of keys that are known to be bad is never complete; this way a key that is new is refused.

    Args:
        path: The file.
        what: What its keys may change, for messages.

    Raises:
        FormatError: If the file is damaged.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._values = read_json_object(path)

    def take(self, key: str, default: Any = None) -> Any:
        """Returns a value and counts it as understood."""
        return self._values.pop(key, default)

    def has(self, key: str) -> bool:
        """Tells whether a key is there and was not taken yet."""
        return key in self._values

    def count(self, key: str) -> int | None:
        """Returns a positive integer, or None where there is none."""
        value = self.take(key)
        if value is not None and not (type(value) is int and 1 <= value < 1 << 31):
            raise FormatError(f"{self.path}: {key!r} must be a positive integer, found {value!r}")
        return value

    def size(self, key: str) -> int:
        """Returns a number of dimensions that must be there."""
        value = self.count(key)
        if value is None or value > _MOST_DIMENSIONS:
            raise FormatError(f"{self.path}: {key!r} must be in 1..{_MOST_DIMENSIONS}, found {value!r}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """Returns true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise FormatError(f"{self.path}: {key!r} must be true or false, found {value!r}")
        return value

    def must_be(self, key: str, *allowed: Any) -> None:
        """Refuses a value that asks for something edgeq does not do."""
        value = self.take(key, allowed[0])
        if not any(value == known and type(value) is type(known) for known in allowed):
            raise UnsupportedError(f"{self.path} asks for {key!r} = {value!r}, which edgeq does not do")

    def close(self) -> None:
        """Refuses keys that nobody took."""
        if self._values:
            raise UnsupportedError(
                f"{self.path} holds {', '.join(map(repr, sorted(self._values)))}, which edgeq does not know and which "
                f"may change {self._what}; take it out of the file if it does not"
            )
