"""JSON as other programs read it: the standard has no NaN and no infinity, which Python would write as words."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False, ascii_only: bool = True) -> str:
    """Returns a value as JSON; a number that is not finite becomes null.

    Args:
        value: Objects, lists, texts, numbers, truth values and None.
        indent: Spaces of each level; None writes one line.
        sort_keys: Whether objects have their keys in order.
        ascii_only: Whether letters beyond ASCII are escaped.
    """
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
