"""Layers that use the packed weights of an embedding table: one tensor, stored once.

A tied layer has no buffers for the weights, only for a bias. It holds the table outside the module tree, so that
checkpoints, exports and moves between devices see the weights in one place.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from edgeq.errors import FormatError
from edgeq.formats.low_bit import Activation
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear, PackedModule
from edgeq.quant.plan import LayerKind


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


@dataclasses.dataclass(frozen=True)
class TiedLayer:
    """One tied layer as the checkpoint describes it.

    Attributes:
        kind: ``linear`` for an output head, ``embedding`` for a second use as a table.
        table: Module name of the embedding table.
        activation: How an output head's input is quantized: ``dynamic`` or ``none``.
        bias: Whether an output head has a bias, which is its own.
    """

    kind: LayerKind
    table: str
    activation: Activation
    bias: bool = False

    def build(self, table: LowBitEmbedding) -> PackedModule:
        """Makes the module on ``table``."""
        if self.kind == "embedding":
            return TiedLowBitEmbedding(table)
        return TiedLowBitLinear(table, activation=self.activation, bias=self.bias)

    @classmethod
    def of_module(cls, module: TiedModule, *, table: str) -> TiedLayer:
        """Describes a module whose table has the name ``table``."""
        if isinstance(module, TiedLowBitLinear):
            return cls("linear", table, module.activation, module.bias is not None)
        return cls("embedding", table, "none")

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for ``config.json``."""
        entry = dataclasses.asdict(self)
        return entry if self.bias else {key: value for key, value in entry.items() if key != "bias"}

    @classmethod
    def from_json(cls, name: str, entry: object) -> TiedLayer:
        """Reads an entry of ``config.json``.

        Raises:
            FormatError: If the entry does not describe a tied layer.
        """
        values = entry if isinstance(entry, dict) else {}
        kind, table, activation = (values.get(key) for key in ("kind", "table", "activation"))
        bias = values.get("bias", False)
        # A static scale would be a tensor of the layer's own; tied layers store none but a bias.
        known = isinstance(table, str) and type(bias) is bool and not (bias and kind == "embedding")
        if known and kind in ("linear", "embedding") and activation in ("none", "dynamic"):
            return cls(kind, str(table), activation, bool(bias))
        raise FormatError(f"config.json: the entry of tied layer {name!r} makes no sense")
