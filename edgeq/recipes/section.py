"""The base of every table of a recipe file: unknown keys and wrong types are refused, nothing can be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pydantic


class Section(pydantic.BaseModel):
    """A table of a recipe file."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    added_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that were added after digests of recipes had been written down: they count where a recipe sets them."""
    path_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys whose value is a path, of which the last part counts: who needs the content takes its digest."""


def meaning(section: Section) -> dict[str, Any]:
    """Returns what a table says, for its digest: the values of all keys, but added ones only where they are set."""
    values = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key not in section.added_keys or value != field.get_default(call_default_factory=True):
            values[key] = Path(value).name if key in section.path_keys else _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return meaning(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
