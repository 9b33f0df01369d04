"""Token ids in a model's settings: which of them a model needs, and their numbers once some tokens have left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NEEDED = ("_token_id", "_token_ids")
_FORCED = ("forced_decoder_ids", "force_words_ids")
_FORBIDDEN = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
_BIASED = "sequence_bias"


def needed_token_ids(settings: Mapping[str, Any]) -> dict[int, str]:
    """Returns the ids that a model cannot do without: tokens with a role, and those that it is forced to generate.

    Args:
        settings: Contents of ``config.json`` or of ``generation_config.json``; tables inside count as well.

    Returns:
        The ids with the key that names each. Negative numbers stand for no token, and are left out.
    """
    found: dict[int, str] = {}
    for key, value in settings.items():
        if _is_table(value):
            found |= needed_token_ids(value)
        elif key.endswith(_NEEDED):
            found |= dict.fromkeys(_ids(value), key)
        elif key == "forced_decoder_ids":
            found |= dict.fromkeys(_ids([pair[1] for pair in value or ()]), key)
        elif key == "force_words_ids":
            found |= dict.fromkeys(_ids(value), key)
    return found


def renumbered_settings(settings: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Returns settings with the numbers that tokens have after some of them have left.

    What forbids or weighs a token that has left is left out: it cannot be generated.

    Args:
        settings: Contents of ``config.json`` or of ``generation_config.json``.
        new_ids: The number of each token that stays, by the one that it had; all that
            :func:`needed_token_ids` names are in it.
    """
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        if _is_table(value) and key != _BIASED:
            changed[key] = renumbered_settings(value, new_ids)
        elif key.endswith(_NEEDED) or key == "force_words_ids":
            changed[key] = _renumbered(value, new_ids)
        elif key == "forced_decoder_ids":
            changed[key] = value and [[place, _renumbered(token, new_ids)] for place, token in value]
        elif key in _FORBIDDEN:
            changed[key] = value and [_renumbered(one, new_ids) for one in value if _stays(one, new_ids)]
        elif key == _BIASED:
            changed[key] = _renumbered_bias(value, new_ids)
        else:
            changed[key] = value
    return changed


def _is_table(value: Any) -> bool:
    """Whether a value is settings inside of settings; labels by number are none."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _ids(value: Any) -> list[int]:
    if isinstance(value, list | tuple):
        return [number for one in value for number in _ids(one)]
    return [value] if type(value) is int and value >= 0 else []


def _stays(value: Any, new_ids: Mapping[int, int]) -> bool:
    return all(number in new_ids for number in _ids(value))


def _renumbered(value: Any, new_ids: Mapping[int, int]) -> Any:
    if isinstance(value, list | tuple):
        return [_renumbered(one, new_ids) for one in value]
    # A number beyond the table names no token, before and after.
    return new_ids.get(value, value) if type(value) is int else value


def _renumbered_bias(value: Any, new_ids: Mapping[int, int]) -> Any:
    """``transformers`` takes pairs of a sequence and its bias, or a table by sequences."""
    if isinstance(value, Mapping):
        return {tuple(_renumbered(tokens, new_ids)): bias for tokens, bias in value.items() if _stays(tokens, new_ids)}
    return value and [[_renumbered(tokens, new_ids), bias] for tokens, bias in value if _stays(tokens, new_ids)]
