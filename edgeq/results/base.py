"""What every result has in common: JSON with a format and a version, read strictly."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from edgeq.errors import FormatError
from edgeq.files import write_json
from edgeq.formats.json_file import read_json_object

Typed = TypeVar("Typed")
STRICT: dict[str, Any] = {"extra": "forbid"}
"""For pydantic: a field that is not known is an error."""
WITH_DERIVED: dict[str, Any] = {"extra": "ignore"}
"""For pydantic: the JSON also holds what follows from the fields, and reading leaves that out."""


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings and sequences as JSON values.

    A class names in ``derived`` what is written beside its fields because it follows from them. JSON has no number that
    is not finite: None stands for one, as in :func:`edgeq.json_text.json_text`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in (*names, *getattr(value, "derived", ()))}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def validated(kind: type[Typed], table: Mapping[str, Any], *, where: str, fix: str) -> Typed:
    """Returns a dataclass of JSON values.

    Args:
        kind: The dataclass.
        table: Values of its fields by name.
        where: The file, for messages.
        fix: What to do about a damaged one.

    Raises:
        FormatError: If a field is missing, unknown or of another type.
    """
    import pydantic

    try:
        found: Typed = adapter(kind).validate_python(table)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FormatError(f"{where} is damaged ({place}: {first['msg']}); {fix}") from None
    return found


def adapter(kind: Any) -> Any:
    """Returns pydantic's adapter of a dataclass, made once; it is loaded here: timing a bundle needs none of it."""
    return _adapter(kind)


@functools.cache
def _adapter(kind: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(kind)


class Result:
    """A file of a run; subclasses are frozen dataclasses whose fields ``format`` and ``version`` have one value."""

    format: Any
    version: Any
    fix: ClassVar[str] = "deploy again"
    """What a user does about a file of another version, or a damaged one."""

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        table: dict[str, Any] = plain(self)
        return table

    def write(self, file: Path) -> None:
        """Writes the file in one step."""
        write_json(file, self.to_json())

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads what :meth:`write` wrote; same errors as :meth:`from_json`."""
        return cls.from_json(read_json_object(file), file)

    @classmethod
    def from_json(cls, table: Mapping[str, Any], file: Path) -> Self:
        """Reads what :meth:`to_json` returned.

        Args:
            table: The contents of the file.
            file: Its name, for messages.

        Raises:
            FormatError: If the values are of another kind, version or shape.
        """
        if (table.get("format"), table.get("version")) != (cls.format, cls.version):
            found = f"{table.get('format')!r} version {table.get('version')!r}"
            raise FormatError(f"{file} should be {cls.format} version {cls.version}, found {found}; {cls.fix}")
        return validated(cls, table, where=str(file), fix=cls.fix)
