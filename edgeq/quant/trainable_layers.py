"""Layers of quantization-aware training: float latent weights that are rounded in every forward pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import UsageError
from edgeq.formats.low_bit import PackedMatrix
from edgeq.quant.activation_training import StaticActivation, make_activation
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.plan import LayerPlan
from edgeq.quant.quantizers import make_quantizer, method_at
from edgeq.quant.quantizers.base import WeightQuantizer


class TrainableLayer(nn.Module):
    """A matrix of latent weights and its quantizer.

    Attributes:
        plan: What the layer is to become.
        weight: Latent weights: float32, ``[N, K]``.
        quantizer: Rounds them.
    """

    quantizer: WeightQuantizer

    def __init__(self, plan: LayerPlan, weight: nn.Parameter) -> None:
        super().__init__()
        if plan.grid is None or plan.method is None:
            raise UsageError(f"layer {plan.name!r} has no quantizer to be trained with; give its plan a method")
        self.plan = plan
        self.weight = weight
        self.change_bits(plan.grid.bits, method=plan.method)

    def decoded_weight(self) -> torch.Tensor:
        """Returns the weights as they will be stored: float32 ``[N, K]``, with the quantizer's gradient."""
        decoded: torch.Tensor = self.quantizer(self.weight)
        return decoded

    def change_bits(self, bits: int, *, method: str | None = None) -> None:
        """Sets the bit width, and the method where the planned one does not define these bits.

        Args:
            bits: New bit width; the planned one is taken where this would go below it.
            method: The method above the planned bits; None for the planned one, or its stand-in there.

        Raises:
            UsageError: If no method has these bits, or ``method`` has not.
        """
        if self.plan.grid is None or self.plan.method is None:
            raise UsageError(f"layer {self.plan.name!r} has no quantizer to be trained with")
        bits = max(bits, self.plan.grid.bits)
        arrived = bits == self.plan.grid.bits
        name = method if method is not None and not arrived else method_at(self.plan.method, bits)
        present = getattr(self, "quantizer", None)
        if present is not None and present.method == name:
            present.set_bits(bits, self.weight)
            return
        own = name == self.plan.method
        quantizer = make_quantizer(
            name,
            bits=bits,
            per_row=self.plan.per_row,
            gradient=self.plan.gradient if own else None,
            grid=self.plan.grid.name if own else None,
            start=self.plan.start if own else "method",
        )
        quantizer.to(self.weight.device).train(self.training)
        quantizer.initialise(self.weight)
        self.quantizer = quantizer

    def encoded(self) -> tuple[PackedMatrix, torch.Tensor, torch.Tensor]:
        """Returns what is stored: its description, codes (uint8 ``[N, K]``) and scales (float32).

        Raises:
            UsageError: If the layer has not arrived at the planned bit width.
        """
        grid = self.plan.grid
        if grid is None or self.quantizer.bits != grid.bits:
            planned = 32 if grid is None else grid.bits
            raise UsageError(
                f"layer {self.plan.name!r} should end with {planned} bits, found {self.quantizer.bits}; "
                "let the last stage reach the planned bits"
            )
        codes, scale = self.quantizer.encode(self.weight)
        rows, columns = self.weight.shape
        spec = PackedMatrix(rows, columns, grid.stored_bits, self.quantizer.zero_point, scale.numel())
        return spec, codes.to(torch.uint8), scale


class TrainableLinear(TrainableLayer):
    """A linear layer in training: latent weights ``[N, K]`` whatever the order in which the float layer had them.

    Attributes:
        bias: float32, ``[N]``, or None.
        activation: Quantizer of the layer's input, or None where the plan keeps it float.
        activation_on: Whether the input is quantized at present.
    """

    def __init__(self, plan: LayerPlan, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__(plan, weight)
        self.bias = bias
        self.activation = make_activation(plan.activation, plan.static_method)
        self.activation_on = self.activation is not None
        self.to(weight.device)

    @property
    def in_features(self) -> int:
        """K."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """N."""
        return self.weight.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: ``[..., K]`` to ``[..., N]``; the matmul alone may use lower precision."""
        return functional.linear(quantized_input(self, x), self.decoded_weight(), self.bias)

    def frozen(self) -> LowBitLinear:
        """Returns the packed layer that computes the same.

        Raises:
            UsageError: If bits or activations have not arrived at what was planned.
        """
        spec, codes, scale = self.encoded()
        check_activation(self)
        packed = LowBitLinear(spec, activation=self.plan.activation, bias=self.bias is not None)
        packed.to(self.weight.device)
        packed.set_codes(codes, scale)
        if self.bias is not None:
            packed.bias = self.bias.detach().float().clone()
        if isinstance(self.activation, StaticActivation):
            packed.activation_scale = self.activation.scale().clone()
        return packed

    def get_extra_state(self) -> torch.Tensor:
        """Returns whether the input is quantized at present."""
        return torch.tensor([int(self.activation_on)])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restores what :meth:`get_extra_state` returned."""
        self.activation_on = bool(state)


class TrainableEmbedding(TrainableLayer):
    """An embedding table in training.

    Attributes:
        padding_idx: Row that gets no gradient, or None.
    """

    embed_scale: float = 1.0
    """Factor on what is looked up, of a table that scales by itself."""

    def __init__(self, plan: LayerPlan, weight: nn.Parameter, padding_idx: int | None) -> None:
        super().__init__(plan, weight)
        self.padding_idx = padding_idx

    @property
    def num_embeddings(self) -> int:
        """N."""
        return self.weight.shape[0]

    @property
    def embedding_dim(self) -> int:
        """K."""
        return self.weight.shape[1]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up: int64 of any shape to float32 ``[*ids.shape, K]``."""
        rows = self.decoded_rows(ids)
        return rows if self.embed_scale == 1 else rows * self.embed_scale

    def decoded_rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up that are not scaled; see :meth:`forward`."""
        if ids.numel() >= self.num_embeddings:
            return functional.embedding(ids, self.decoded_weight(), self.padding_idx)
        # A batch meets few rows of a vocabulary: only these are rounded.
        rows, places = torch.unique(ids, return_inverse=True)
        decoded = self.quantizer.decode_rows(self.weight, rows)
        if self.padding_idx is not None:
            decoded = torch.where((rows == self.padding_idx).unsqueeze(1), decoded.detach(), decoded)
        return functional.embedding(places, decoded)

    def frozen(self) -> LowBitEmbedding:
        """Returns the packed table.

        Raises:
            UsageError: If the bits have not arrived at what was planned.
        """
        spec, codes, scale = self.encoded()
        packed = LowBitEmbedding(spec).to(self.weight.device)
        packed.set_codes(codes, scale)
        return packed


class TiedTrainable(nn.Module):
    """A layer on the latent weights of an embedding table, which it holds outside the module tree."""

    def __init__(self, plan: LayerPlan, table: TrainableEmbedding) -> None:
        super().__init__()
        self.plan = plan
        self._tables = (table,)  # as an attribute of its own it would become a part of this module

    @property
    def table(self) -> TrainableEmbedding:
        """The table that has the weights."""
        return self._tables[0]

    @property
    def weight(self) -> nn.Parameter:
        """The table's latent weights."""
        return self.table.weight


class TiedTrainableLinear(TiedTrainable):
    """An output head on the rows of an embedding table.

    Attributes:
        bias: float32, ``[N]``, or None.
        activation: Quantizer of its input, or None.
        activation_on: Whether the input is quantized at present.
    """

    def __init__(self, plan: LayerPlan, table: TrainableEmbedding, bias: nn.Parameter | None = None) -> None:
        super().__init__(plan, table)
        self.bias = bias
        if plan.activation == "static":
            raise UsageError(
                f"layer {plan.name!r} shares the weights of {plan.tied_to!r} and has no place for a static "
                "activation scale; plan it with dynamic activations"
            )
        self.activation = make_activation(plan.activation, plan.static_method)
        self.activation_on = self.activation is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: ``[..., K]`` to ``[..., N]``."""
        return functional.linear(quantized_input(self, x), self.table.decoded_weight(), self.bias)

    def get_extra_state(self) -> torch.Tensor:
        """Returns whether the input is quantized at present."""
        return torch.tensor([int(self.activation_on)])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restores what :meth:`get_extra_state` returned."""
        self.activation_on = bool(state)


class TiedTrainableEmbedding(TiedTrainable):
    """A second use of an embedding table."""

    embed_scale: float = 1.0
    """Factor on what is looked up, of a table that scales by itself."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up, as the table does."""
        rows = self.table.decoded_rows(ids)
        return rows if self.embed_scale == 1 else rows * self.embed_scale


def quantized_input(layer: TrainableLinear | TiedTrainableLinear, x: torch.Tensor) -> torch.Tensor:
    """Returns the input of a layer, quantized where that is switched on."""
    return layer.activation(x) if layer.activation is not None and layer.activation_on else x


def check_activation(layer: TrainableLinear | TiedTrainableLinear) -> None:
    """Refuses to freeze what was not trained.

    Raises:
        UsageError: If planned activations are switched off, or a static scale saw no data.
    """
    name = layer.plan.name
    if layer.activation is not None and not layer.activation_on:
        raise UsageError(
            f"layer {name!r} should end with {layer.plan.activation} activations, found them switched off; "
            "let the last stage switch them on"
        )
    if isinstance(layer.activation, StaticActivation) and not bool(layer.activation.started):
        raise UsageError(f"layer {name!r} should have a learned activation scale, but saw no data; train it first")
