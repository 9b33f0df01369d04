"""Puts a layer of another kind where a layer is."""

from __future__ import annotations

from torch import nn


def put_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replaces a layer, which hands its factor on.

    BART's tables of tokens scale what they look up by themselves (``embed_scale``); so does what takes their place.

    Args:
        model: Changed in place.
        name: Module name of the layer.
        layer: What takes its place; a table has an attribute ``embed_scale``.
    """
    factor = getattr(model.get_submodule(name), "embed_scale", 1.0)
    if factor != 1.0:
        layer.embed_scale = float(factor)  # type: ignore[assignment]  # a number, of a table
    model.set_submodule(name, layer)
