"""Buffers of a model that hold nothing but zeros: a checkpoint names them instead of storing them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def drop_zero_buffers(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Takes those buffers out of the model's state that are all zero, and returns their names.

    Args:
        model: Changed in place; the buffers themselves stay.
        names: Buffers to look at.
    """
    dropped = tuple(name for name in names if not bool(model.get_buffer(name).any()))
    for name in dropped:
        set_buffer(model, name, model.get_buffer(name))
    return dropped


def set_buffer(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Replaces a buffer by one that is not part of the model's state."""
    owner, _, attribute = name.rpartition(".")
    model.get_submodule(owner).register_buffer(attribute, value, persistent=False)
