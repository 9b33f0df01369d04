"""What is to be done to each layer, and what was done: plain records between recipes and quantizers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeq.formats.low_bit import Activation
from edgeq.formats.quantization_config import LayerKind, LeftOutTokens
from edgeq.quant.grids import Grid
from edgeq.quant.scale_search import SearchMethod

GradientName = Literal["method", "identity", "clipped", "pact"]
"""Gradient of the rounding in training; ``method`` is the quantizer's own. See ``quantizers/straight_through.py``."""
StartRule = Literal["method", "error"] | float
"""Where what a quantizer learns starts: where the method says, at the least squared rounding error, or with the largest
level at this many times the mean magnitude of the weights."""
StaticMethod = Literal["lsq", "pact"]
"""How a static activation scale is learned: as a step, or as a clip."""


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is to be stored.

    Attributes:
        name: Module name inside the model.
        kind: ``linear`` or ``embedding``.
        grid: Levels of the weights, or None to keep the layer in float.
        per_row: One scale a row, or one for the matrix.
        search: How the scale is found.
        activation: How a linear layer's input is quantized; ``none`` for embeddings.
        keep_float_reason: Why the layer stays float, where ``grid`` is None.
        tied_to: Embedding table whose weights the layer uses, where it has none of its own; the plan of the
            table comes first, and says how both are stored.
        method: The quantizer that training uses, by its name in ``edgeq.quant.quantizers``; None for a layer that
            is rounded once, without training. ``search`` then means nothing, and ``grid`` gives the bits and, at
            2 bits, the choice between ternary and balanced levels; other levels are the method's own.
        gradient: Gradient of the rounding in training.
        static_method: How training learns the scale of a ``static`` activation.
        start: Where what the quantizer learns starts.
    """

    name: str
    kind: LayerKind
    grid: Grid | None
    per_row: bool = True
    search: SearchMethod = "mse"
    activation: Activation = "none"
    keep_float_reason: str | None = None
    tied_to: str | None = None
    method: str | None = None
    gradient: GradientName = "method"
    static_method: StaticMethod = "lsq"
    start: StartRule = "method"


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """What became of one layer.

    Attributes:
        name: Module name inside the model.
        kind: ``linear`` or ``embedding``.
        rows: N.
        columns: K.
        bits: Bits of one code; 32 for a layer that stays float.
        zero_point: Code that stands for 0.0, or None for float.
        scales: Number of scales; 0 for float.
        activation: How the layer's input is quantized.
        stored_bytes: Bytes of codes, scales and padding, or of the float weights; 0 for a tied layer.
        relative_error: Sum of squared rounding errors over the sum of squared weights; 0.0 for float.
        kept_float_reason: Why the layer stays float, or None.
        tied_to: Embedding table whose weights the layer uses, or None.
    """

    name: str
    kind: LayerKind
    rows: int
    columns: int
    bits: int
    zero_point: float | None
    scales: int
    activation: Activation
    stored_bytes: int
    relative_error: float
    kept_float_reason: str | None = None
    tied_to: str | None = None


@dataclasses.dataclass(frozen=True)
class CompressionResult:
    """The layers of a compressed model, in the model's order, and the recipe they followed.

    Attributes:
        recipe: Name of the recipe.
        recipe_sha256: Digest of its contents.
        layers: One record a layer.
        zero_buffers: Buffers that hold zeros and are not stored.
        vocabulary: Tokens that were left out; None if all stayed.
    """

    recipe: str
    recipe_sha256: str
    layers: list[LayerRecord]
    zero_buffers: tuple[str, ...] = ()
    vocabulary: LeftOutTokens | None = None

    @property
    def kept_float(self) -> dict[str, str]:
        """Layers that stay float, with the reason."""
        return {r.name: r.kept_float_reason for r in self.layers if r.kept_float_reason is not None}
