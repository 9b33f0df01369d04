"""Switches a model's dropout off while it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

_RATES = ("dropout", "attention_dropout", "activation_dropout", "dropout_prob")


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Sets all dropout rates of ``model`` to 0 within the block; BERT and BART hold some as plain numbers."""
    changed: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else _RATES
        for name in names:
            value = getattr(module, name, None)
            if isinstance(value, float):
                changed.append((module, name, value))
                setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)
