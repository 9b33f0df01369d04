"""Tokens with a part to play, from the ``tokenizer_config.json`` beside a ``tokenizer.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats.json_file import read_json_object

CONFIG_FILE = "tokenizer_config.json"
NONE = 0xFFFFFFFF


def read_roles(folder: Path, tokenizer: Any) -> list[int]:
    """Returns the tokens that mask, that stand for what is unknown, that fill up, and that classes are read from.

    A token that no file names is :data:`NONE`.

    Raises:
        FormatError: If the file is damaged.
    """
    settings = tokenizer_settings(folder)
    return [_token(settings, f"{name}_token", folder, tokenizer) for name in ("mask", "unk", "pad", "cls")]


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Returns what a folder's ``tokenizer_config.json`` says; nothing if there is none.

    Raises:
        FormatError: If it is damaged.
    """
    path = folder / CONFIG_FILE
    return read_json_object(path) if path.is_file() else {}


def _token(settings: dict[str, Any], key: str, folder: Path, tokenizer: Any) -> int:
    value = settings.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    if content is None:
        return NONE
    if not isinstance(content, str):
        raise FormatError(f"{folder / CONFIG_FILE}: {key!r} must be a token, found {value!r}")
    number = tokenizer.token_to_id(content)
    return NONE if number is None else int(number)
