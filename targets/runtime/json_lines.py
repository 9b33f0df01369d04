"""JSON that a person can read and that stays small: what fits stands on one line."""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 160


def to_lines(value: Any) -> str:
    """Returns plain JSON values as text: the same values give the same bytes."""
    return _lines(value, "") + "\n"


def _lines(value: Any, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or len(indent) + len(flat) <= _WIDTH or not value:
        return flat
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + "\n" + indent + "}"
    return "[\n" + ",\n".join(deeper + _lines(item, deeper) for item in value) + "\n" + indent + "]"
