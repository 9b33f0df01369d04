"""Biases of output heads, which ``transformers`` keeps twice: in the layer, and in the module around it."""

from __future__ import annotations

from torch import nn

from edgeq.quant.modules import LowBitLinear


def keep_biases_in_layers(model: nn.Module) -> None:
    """Leaves the bias of a packed output head in the layer alone, where it is stored.

    ``BertLMPredictionHead`` and its kin have a parameter ``bias`` beside the layer ``decoder``, of which it is the bias
    too, and a method that makes them one again after loading. A packed layer has a buffer of its own instead.

    Args:
        model: Changed in place where it has such a head.
    """
    for module in model.modules():
        bias = module._parameters.get("bias")
        for layer in module.children():
            if bias is not None and isinstance(layer, LowBitLinear) and layer.bias is not None:
                if layer.bias.shape != bias.shape:
                    continue
                module.register_parameter("bias", None)
                module._tie_weights = _nothing_to_tie  # type: ignore[assignment]


def _nothing_to_tie() -> None:
    """Stands for the method of the head."""
