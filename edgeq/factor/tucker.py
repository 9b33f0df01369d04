"""Layers that share their outer factors, and possibly their cores, with all other layers of the model.

Ren et al., Exploring Extreme Parameter Compression for Pre-trained Language Models (ICLR 2022, arXiv 2205.10036).
The matrices of all layers are cut into slices ``W_i [D, D]``: queries, keys, values and attention outputs are one each
(input x output), the feed-forward matrices ``[rD, D]`` are ``r`` each, with the wide side on the left. Then::

    III-d      W_i = U S_i V                        U [D, d] and V [d, D] are shared by all slices
    IV-l-d     W_i = U (sum_m P_im C_m) V           so are the l cores C_m: a Tucker decomposition

Protocol 2 of the paper: ``x W_i`` is ``((x U) S_i) V``; no ``[D, D]`` matrix is made.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import UsageError
from edgeq.factor.specs import OUTER_FACTORS, BankSpec, Fold, TuckerSpec
from edgeq.factor.weights import weight_of


class TransposedLinear(nn.Module):
    """A linear layer with the transposed weights of another one, which it does not hold."""

    def __init__(self, other: nn.Linear) -> None:
        super().__init__()
        self._others = (other,)  # in a tuple, or it would become a part of this module

    @property
    def weight(self) -> torch.Tensor:
        """The other layer's weights, transposed."""
        return self._others[0].weight.T

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: float32 ``[..., out]`` of the other layer to float32 ``[..., in]``."""
        return functional.linear(x, self.weight)


class TuckerBank(nn.Module):
    """What all layers share.

    Attributes:
        spec: Sizes, and which factors are stored.
        left_down: Linear layer with ``U^T``: reads ``[..., D]``.
        right_up: Linear layer with ``V^T``: makes ``[..., D]``.
        right_down: Reads with ``V``, for transposed slices.
        left_up: Makes with ``U``, for transposed slices.
        cores: Float or packed table ``[l d, d]`` of the cores, one below the other, or None.
    """

    def __init__(self, spec: BankSpec) -> None:
        super().__init__()
        self.spec = spec
        stored = {}
        for factor in spec.factors:
            sizes = (spec.width, spec.rank) if factor.endswith("down") else (spec.rank, spec.width)
            stored[factor] = nn.Linear(*sizes, bias=False)
        for factor, tied in zip(OUTER_FACTORS, reversed(OUTER_FACTORS), strict=True):
            layer = stored.get(factor) or (TransposedLinear(stored[tied]) if tied in stored else None)
            self.add_module(factor, layer)
        self.cores = nn.Embedding(spec.cores * spec.rank, spec.rank) if spec.cores else None
        self._in_pass = False
        self._rounded: torch.Tensor | None = None

    def serve(self, blocks: nn.Module) -> None:
        """Lets all layers inside ``blocks`` share what one forward pass of it makes of the cores.

        A core in training is rounded, and a packed one decoded; once a pass is enough for all layers.
        """
        blocks.register_forward_pre_hook(self._begin_pass)
        blocks.register_forward_hook(self._end_pass, always_call=True)

    def _begin_pass(self, *_: object) -> None:
        # A tensor that is kept while the model is traced would become a constant of the graph.
        self._in_pass, self._rounded = not torch.compiler.is_exporting(), None

    def _end_pass(self, *_: object) -> None:
        self._in_pass, self._rounded = False, None

    def first(self, *, transposed: bool) -> nn.Module:
        """The factor that reads a layer's input."""
        return self.get_submodule("right_down" if transposed else "left_down")

    def last(self, *, transposed: bool) -> nn.Module:
        """The factor that makes a layer's output."""
        return self.get_submodule("left_up" if transposed else "right_up")

    def core_matrices(self) -> torch.Tensor:
        """Returns the shared cores, decoded if they are packed: float32 ``[l, d * d]``."""
        cores = self.cores
        if cores is None:
            raise UsageError("in this bank every slice has a core of its own")
        shape = (self.spec.cores, self.spec.rank**2)
        if isinstance(cores, nn.Embedding):
            return cores.weight.reshape(shape)
        if self._rounded is not None:
            return self._rounded
        # A look-up of all rows, which runtimes decode once when they load.
        rows = torch.arange(self.spec.cores * self.spec.rank, device=self._device())
        matrices: torch.Tensor = cores(rows).reshape(shape)
        if self._in_pass:
            self._rounded = matrices
        return matrices

    def _device(self) -> torch.device:
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device


class TuckerLinear(nn.Module):
    """A linear layer as a grid of slices over a bank.

    Attributes:
        spec: Sizes and orientation.
        core: Linear layer ``inputs d / D -> outputs d / D`` with the layer's own cores, or None.
        mix: float32 ``[slices, l]``, the layer's rows of ``P``, or None.
        folded: Linear layer with the product of cores and last (or first) factor, or None.
        bias: float32 ``[rows]``, or None where ``folded`` has it.
    """

    def __init__(self, spec: TuckerSpec, bank: TuckerBank) -> None:
        super().__init__()
        self.spec = spec
        self._banks = (bank,)  # in a tuple, or it would become a part of this module
        down, across, d = *spec.grid, spec.rank
        self.core: nn.Module | None = None
        self.mix: nn.Parameter | None = None
        self.folded: nn.Module | None = None
        if spec.fold == "up":
            self.folded = nn.Linear(across * d, spec.rows, bias=spec.bias)
        elif spec.fold == "down":
            self.folded = nn.Linear(spec.columns, down * d, bias=False)
        elif spec.mixed:
            self.mix = nn.Parameter(torch.zeros(spec.slices, spec.mixed))
        else:
            self.core = nn.Linear(across * d, down * d, bias=False)
        own_bias = spec.bias and spec.fold != "up"
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if own_bias else None

    @property
    def bank(self) -> TuckerBank:
        """What the layer shares with others."""
        return self._banks[0]

    @property
    def in_features(self) -> int:
        """Input features."""
        return self.spec.columns

    @property
    def out_features(self) -> int:
        """Output features."""
        return self.spec.rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        spec = self.spec
        if spec.fold == "down" and self.folded is not None:
            state = self.folded(x)
        else:
            state = self._spread(self.bank.first(transposed=spec.transposed), x, spec.grid[1], spec.width)
            if self.folded is not None:
                y: torch.Tensor = self.folded(state)
                return y
            # A packed core quantizes its input; a mixed one is a float matrix whatever its parts are.
            state = self.core(state) if self.core is not None else functional.linear(state, self.core_weight())
        y = self._spread(self.bank.last(transposed=spec.transposed), state, spec.grid[0], spec.rank)
        return y if self.bias is None else y + self.bias

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        owner = self.folded if self.spec.fold == "up" and self.folded is not None else self
        owner.get_parameter("bias").data.copy_(bias)

    def core_weight(self) -> torch.Tensor:
        """Returns the cores as the weight of one linear layer: float32 ``[outputs d / D, inputs d / D]``."""
        if self.core is not None:
            return weight_of(self.core)
        if self.mix is None:
            raise UsageError("the cores of a folded layer are part of another factor")
        return assembled(self.mix @ self.bank.core_matrices(), self.spec)

    def folded_weight(self, fold: Fold) -> torch.Tensor:
        """Returns the product of the cores with the last factor (``up``) or the first one (``down``).

        Returns:
            float32 ``[rows, inputs d / D]``, or ``[outputs d / D, columns]``.
        """
        (down, across), d = self.spec.grid, self.spec.rank
        core = self.core_weight()
        if fold == "up":
            last = weight_of(self.bank.last(transposed=self.spec.transposed))
            return torch.einsum("od,qde->qoe", last, core.reshape(down, d, across * d)).flatten(0, 1)
        first = weight_of(self.bank.first(transposed=self.spec.transposed))
        return torch.einsum("epd,di->epi", core.reshape(down * d, across, d), first).flatten(1)

    @staticmethod
    def _spread(layer: nn.Module, x: torch.Tensor, blocks: int, width: int) -> torch.Tensor:
        """Applies one layer to each of the blocks that stand side by side in the last axis."""
        if blocks == 1:
            y: torch.Tensor = layer(x)
            return y
        return layer(x.unflatten(-1, (blocks, width))).flatten(-2)


def assembled(cores: torch.Tensor, spec: TuckerSpec) -> torch.Tensor:
    """Joins the cores of a layer's slices to the weight of one linear layer.

    Args:
        cores: ``S_i``, float32 ``[slices, d * d]``, slices row by row in the grid.
        spec: The layer.

    Returns:
        float32 ``[outputs d / D, inputs d / D]``.
    """
    (down, across), d = spec.grid, spec.rank
    blocks = cores.reshape(down, across, d, d)
    # A slice is input x output, a linear layer's weight output x input; transposed slices are that already.
    order = (0, 2, 1, 3) if spec.transposed else (0, 3, 1, 2)
    return blocks.permute(*order).reshape(down * d, across * d)
