"""Typed access to parsed JSON, for files that must be read without a schema library."""

from __future__ import annotations

from typing import Any

from edgeq.errors import FormatError


class JsonTable:
    """A JSON object whose fields are taken out with their types checked.

    Every method raises FormatError if the key is missing or its value has another type.

    Attributes:
        items: The fields as parsed.
        where: What messages call this object.
    """

    def __init__(self, items: Any, where: str) -> None:
        if not isinstance(items, dict):
            raise FormatError(f"{where} must be a table, found {type(items).__name__}")
        self.items: dict[str, Any] = items
        self.where = where

    def value(self, key: str) -> Any:
        """Returns a field of any type."""
        if key not in self.items:
            raise FormatError(f"{self.where}: {key!r} is missing")
        return self.items[key]

    def text(self, key: str) -> str:
        """Returns a text."""
        value = self.value(key)
        if not isinstance(value, str):
            raise FormatError(f"{self.where}: {key!r} must be text, found {value!r}")
        return value

    def integer(self, key: str, *, at_least: int = 0) -> int:
        """Returns an integer in ``[at_least, 2**62)``."""
        value = self.value(key)
        if type(value) is not int or not at_least <= value < 1 << 62:
            raise FormatError(
                f"{self.where}: {key!r} must be an integer of at least {at_least}, found {value!r}"
            )
        return value

    def number(self, key: str) -> float:
        """Returns a finite number."""
        value = self.value(key)
        if type(value) not in (int, float) or not abs(value) < 1e300:
            raise FormatError(f"{self.where}: {key!r} must be a number, found {value!r}")
        return float(value)

    def boolean(self, key: str) -> bool:
        """Returns true or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise FormatError(f"{self.where}: {key!r} must be true or false, found {value!r}")
        return value

    def sequence(self, key: str) -> list[Any]:
        """Returns a list of anything."""
        value = self.value(key)
        if not isinstance(value, list):
            raise FormatError(f"{self.where}: {key!r} must be a list, found {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of texts."""
        values = self.sequence(key)
        if not all(isinstance(value, str) for value in values):
            raise FormatError(f"{self.where}: {key!r} must be a list of texts")
        return tuple(values)

    def table(self, key: str) -> JsonTable:
        """Returns a field that is an object itself."""
        return JsonTable(self.value(key), f"{key!r}")

    def tables(self, key: str) -> list[JsonTable]:
        """Returns a list of objects."""
        return [JsonTable(item, f"{key}[{index}]") for index, item in enumerate(self.sequence(key))]
