"""Layers that use the packed weights of an embedding table: one tensor, stored once.

A tied layer has no buffers for the weights, only for a bias. It holds the table outside the module tree, so that
checkpoints, exports and moves between devices see the weights in one place.
"""

from __future__ import annotations

import torch

from edgeq.formats.low_bit import Activation
from edgeq.formats.quantization_config import TiedLayer
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear, PackedModule


class TiedModule(PackedModule):
    """What tied layers have in common; a mix-in that comes before the layer's own class."""

    _tables: tuple[LowBitEmbedding]

    @property
    def table(self) -> LowBitEmbedding:
        """The table that has the weights."""
        return self._tables[0]

    @property
    def weight_packed(self) -> torch.Tensor:  # type: ignore[override]  # a buffer of other packed modules
        """The table's codes."""
        return self.table.weight_packed

    @property
    def scale(self) -> torch.Tensor:  # type: ignore[override]
        """The table's scales."""
        return self.table.scale

    def set_codes(self, codes: torch.Tensor, scale: torch.Tensor) -> None:
        """Stores codes and scales in the table; see :meth:`PackedModule.set_codes`."""
        self.table.set_codes(codes, scale)

    def centred_codes(self) -> torch.Tensor:
        """Returns what the table decoded, so that it is decoded once for both."""
        return self.table.centred_codes()

    def _create_storage(self) -> None:
        """The table has the storage."""

    def _tie(self, table: LowBitEmbedding) -> None:
        self._tables = (table,)  # as an attribute of its own it would become a part of this module


class TiedLowBitLinear(TiedModule, LowBitLinear):
    """An output head on the rows of an embedding table."""

    def __init__(self, table: LowBitEmbedding, *, activation: Activation, bias: bool = False) -> None:
        super().__init__(table.spec, activation=activation, bias=bias)
        self._tie(table)


class TiedLowBitEmbedding(TiedModule, LowBitEmbedding):
    """A second use of an embedding table."""

    def __init__(self, table: LowBitEmbedding) -> None:
        super().__init__(table.spec)
        self._tie(table)


def build_tied(layer: TiedLayer, table: LowBitEmbedding) -> PackedModule:
    """Makes the module that ``layer`` describes, on ``table``."""
    if layer.kind == "embedding":
        return TiedLowBitEmbedding(table)
    return TiedLowBitLinear(table, activation=layer.activation, bias=layer.bias)


def describe_tied(module: TiedModule, *, table: str) -> TiedLayer:
    """Describes a module whose table has the name ``table``."""
    if isinstance(module, TiedLowBitLinear):
        return TiedLayer("linear", table, module.activation, module.bias is not None)
    return TiedLayer("embedding", table, "none")
