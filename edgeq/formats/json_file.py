"""Reads JSON files that others wrote: strictly, and without trusting them with memory or time."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.reading import LARGEST_TEXT, read_text

_MOST_DIGITS = 40  # tokenizers without a limit say 1000000000000000019884624838656
_SHOWN = 40
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, *, largest: int = LARGEST_TEXT) -> Any:
    """Reads a JSON file.

    Beyond the standard, keys of an object must differ (parsers disagree on which of two counts), numbers must be
    finite, integers have at most 40 digits, and texts can be written as UTF-8.

    Args:
        path: The file.
        largest: Most bytes that it may have.

    Raises:
        UsageError: If there is no such file, or it may not be read.
        FormatError: If it is no regular file, larger, not UTF-8, or not such JSON.
    """
    return parse_json(read_text(path, largest=largest), where=str(path))


def parse_json(text: str, *, where: str) -> Any:
    """Parses JSON as :func:`read_json` does.

    Args:
        text: The text.
        where: What messages call it.

    Raises:
        FormatError: If it is not such JSON.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real
        )
        if _SURROGATE.search(text):  # halves of a pair are fine together, and alone no text that can be written
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _RefusedError as error:
        raise FormatError(f"{where} is damaged: {error}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where} is damaged: it is not valid JSON ({error})") from None
    except UnicodeEncodeError:
        raise FormatError(f"{where} is damaged: a text holds half a surrogate pair") from None
    except RecursionError:
        raise FormatError(f"{where} is damaged: its lists and objects are nested too deeply") from None
    return value


def read_json_object(path: Path, *, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """Reads a JSON file whose top is an object; see :func:`read_json`.

    Raises:
        UsageError: If there is no such file, or it may not be read.
        FormatError: If it is damaged, or its top is no object.
    """
    value = read_json(path, largest=largest)
    if not isinstance(value, dict):
        raise FormatError(f"{path} is damaged: it should hold a JSON object, found {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """Returns what JSON calls the kind of a value, with an article."""
    if isinstance(value, bool):
        return "a truth value"
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


class _RefusedError(Exception):
    """JSON that Python would read, and that is refused; the text says why."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"an object has the key {key[:_SHOWN]!r} twice")
            seen.add(key)
    return values


def _constant(name: str) -> Any:
    raise _RefusedError(f"{name} is no number that JSON has")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _RefusedError(f"an integer has {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {digits[:_SHOWN]} is too large")
    return value
