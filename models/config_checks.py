"""Checks of the numbers in a configuration, before memory is taken for what they claim."""

from __future__ import annotations

from typing import Any

from edgeq.errors import FormatError


def check_sizes(config: Any, largest: dict[str, int]) -> None:
    """Refuses sizes that are no integers, not positive, or larger than anything that exists.

    Args:
        config: A ``transformers`` configuration.
        largest: Largest value of each attribute.

    Raises:
        FormatError: If one of them is out of range.
    """
    for name, limit in largest.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise FormatError(f"config.json: {name} must be an integer in 1..{limit}, found {value!r}")


def check_heads(config: Any, *, width: str, heads: str) -> None:
    """Raises :class:`FormatError` unless the attribute ``width`` is a multiple of the attribute ``heads``."""
    if getattr(config, width) % getattr(config, heads):
        raise FormatError(
            f"config.json: {width} must be a multiple of {heads}, "
            f"found {getattr(config, width)} and {getattr(config, heads)}"
        )


def check_epsilon(config: Any, name: str) -> None:
    """Raises :class:`FormatError` unless the attribute ``name`` is a float between 0 and 1."""
    value = getattr(config, name)
    if not isinstance(value, float) or not 0 < value < 1:
        raise FormatError(f"config.json: {name} must be in 0..1, found {value!r}")


def check_padding_id(config: Any, *, positions: str) -> None:
    """Raises :class:`FormatError` unless rows of the table of positions are left behind the padding id."""
    padding, rows = config.pad_token_id, getattr(config, positions)
    if not isinstance(padding, int) or isinstance(padding, bool) or not 0 <= padding < rows - 1:
        raise FormatError(f"config.json: pad_token_id must be in 0..{rows - 2}, found {padding!r}")


def check_token(config: Any, name: str) -> None:
    """Raises :class:`FormatError` unless the attribute ``name`` is a token of the vocabulary."""
    token, size = getattr(config, name, None), config.vocab_size
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < size:
        raise FormatError(f"config.json: {name} must be in 0..{size - 1}, found {token!r}")


def check_labels(config: Any) -> None:
    """Raises :class:`FormatError` unless ``id2label`` numbers the labels of a classifier from 0."""
    if set(config.id2label) != set(range(len(config.id2label))):
        raise FormatError(f"config.json: id2label must number labels from 0, found {list(config.id2label)}")
