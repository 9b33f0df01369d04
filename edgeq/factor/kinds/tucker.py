"""Layers that share their outer factors, and possibly their cores, with all other layers of the model.

Ren et al., Exploring Extreme Parameter Compression for Pre-trained Language Models (ICLR 2022, arXiv 2205.10036).
The matrices of all layers are cut into slices ``W_i [D, D]``: queries, keys, values and attention outputs are one each
(input x output), the feed-forward matrices ``[rD, D]`` are ``r`` each, with the wide side on the left. Then::

    III-d      W_i = U S_i V                        U [D, d] and V [d, D] are shared by all slices
    IV-l-d     W_i = U (sum_m P_im C_m) V           so are the l cores C_m: a Tucker decomposition

Protocol 2 of the paper: ``x W_i`` is ``((x U) S_i) V``; no ``[D, D]`` matrix is made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UsageError
from edgeq.factor.cost import Cost, Evaluation, dense_cost, readers_of
from edgeq.factor.decompose import shared_outer_factors, tucker
from edgeq.factor.kinds.base import FactorLinear, FactorSettings, FactorSpec, Reader, SharedFactors, one_of
from edgeq.factor.matrices import ROLES, Matrix, Role, check_rank, matrices_of
from edgeq.factor.weights import weight_of
from edgeq.models import LayerStack, ModelAdapter

Fold = Literal["none", "up", "down"]
"""Which products of constant factors are made beforehand: none, core times last factor, or first times core."""
FOLDS: tuple[Fold, ...] = ("none", "up", "down")

OUTER_FACTORS = ("left_down", "right_up", "right_down", "left_up")
"""Uses of ``U`` and ``V``: reading with ``U``, making with ``V``, and for transposed slices the reverse."""

BANK = "bank"
"""What a bank is called inside the module that holds the blocks."""


def _read_factors(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or any(factor not in OUTER_FACTORS for factor in value):
        raise TypeError
    return tuple(value)


@dataclasses.dataclass(frozen=True)
class BankSpec(FactorSpec):
    """Outer factors ``U [width, rank]`` and ``V [rank, width]``, and cores that all layers of a model share.

    Attributes:
        width: Hidden size; every slice is ``[width, width]``.
        rank: ``d``.
        cores: ``l``, the number of shared core matrices; 0 where every slice has its own (III-d).
        factors: Outer factors that are stored, of ``OUTER_FACTORS``. Transposed slices use ``U`` and ``V`` the other
            way round; those uses are tied to the first two unless they are stored, too.
    """

    kind = "bank"
    is_shared = True
    readers: ClassVar[Mapping[str, Reader]] = {"factors": _read_factors}

    width: int
    rank: int
    cores: int
    factors: tuple[str, ...] = ("left_down", "right_up")

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return len(self.factors) * self.width * self.rank + self.cores * self.rank**2

    def build(self, model: nn.Module) -> TuckerBank:
        """Makes the bank, which serves the module that it is put into: ``model``."""
        bank = TuckerBank(self)
        bank.serve(model)
        return bank

    @classmethod
    def prepare(cls, model: nn.Module, *, fold: bool, tokens: int) -> None:
        """Unties the banks of a model and, if asked to, folds the layers on them.

        A packed matrix is read row by row. A bank that serves both orientations of slices would have to be packed
        twice, with scales that belong to one of them, so its factors are untied. And a core that is mixed, or a factor
        that is multiplied into another one when a model is loaded, is computed in float; where that costs more than it
        saves, the product itself is stored, trained and packed.
        """
        if fold:
            _fold(model, tokens)
        for module in list(model.modules()):
            if isinstance(module, TuckerBank):
                _untie(module, _used_factors(model, module))
        _drop_unused_cores(model)


@dataclasses.dataclass(frozen=True)
class TuckerSpec(FactorSpec):
    """One linear layer as a grid of slices ``U S V`` over a bank.

    Attributes:
        bank: Module name of the bank.
        width: Hidden size.
        rank: ``d``.
        grid: Slices (outputs / width, inputs / width).
        mixed: Number of shared cores that each slice's core is a mixture of; 0 if the layer has its own cores.
        transposed: Whether slices are output x input (the widening matrix of a feed-forward layer), so that
            ``V`` reads the input and ``U`` makes the output.
        fold: What was multiplied beforehand; stored as such.
        bias: Whether the layer has a bias.
    """

    kind = "tucker"
    refers_to = ("bank",)
    shares_first_factor = True
    walks_layer_by_layer = False
    readers: ClassVar[Mapping[str, Reader]] = {"fold": one_of(FOLDS)}

    bank: str
    width: int
    rank: int
    grid: tuple[int, int]
    mixed: int
    transposed: bool
    bias: bool
    fold: Fold = "none"

    @property
    def slices(self) -> int:
        """Number of slices."""
        return math.prod(self.grid)

    @property
    def rows(self) -> int:
        """Output features."""
        return self.grid[0] * self.width

    @property
    def columns(self) -> int:
        """Input features."""
        return self.grid[1] * self.width

    @property
    def parameters(self) -> int:
        """Stored numbers of the layer itself, without those of the bank; the bias included."""
        bias = self.rows if self.bias else 0
        if self.fold != "none":
            return self.slices * self.width * self.rank + bias
        return self.slices * (self.mixed or self.rank**2) + bias

    @property
    def shape(self) -> tuple[int, int]:
        """Output features and input features."""
        return self.rows, self.columns

    def build(self, model: nn.Module) -> TuckerLinear:
        """Makes the layer on the bank that is in ``model``.

        Raises:
            FormatError: If it is not, or has other sizes.
        """
        bank = dict(model.named_modules()).get(self.bank)
        if not isinstance(bank, TuckerBank) or not self._fits(bank.spec):
            raise FormatError(f"config.json: {self.bank!r} should be a bank of width {self.width} and rank {self.rank}")
        return TuckerLinear(self, bank)

    def _fits(self, bank: BankSpec) -> bool:
        mixes = self.fold == "none" and self.mixed
        return (self.width, self.rank) == (bank.width, bank.rank) and (not mixes or self.mixed == bank.cores)

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:
        """Returns the cost of each way to compute the layer; empty where the recipe has chosen one."""
        return _costs(self, readers) if self.fold == "none" else {}


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


class TuckerBank(SharedFactors):
    """What all layers share.

    Attributes:
        spec: Sizes, and which factors are stored.
        left_down: Linear layer with ``U^T``: reads ``[..., D]``.
        right_up: Linear layer with ``V^T``: makes ``[..., D]``.
        right_down: Reads with ``V``, for transposed slices.
        left_up: Makes with ``U``, for transposed slices.
        cores: Float or packed table ``[l d, d]`` of the cores, one below the other, or None.
    """

    spec: BankSpec

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

    def matrix_parts(self) -> tuple[str, ...]:
        """Shared cores are matrices of linear layers."""
        return ("cores",) if self.cores is not None else ()

    @torch.no_grad()
    def fill_layers(self, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
        """Decomposes the slices of all layers together; see :meth:`SharedFactors.fill_layers`."""
        layers = {n: m for n, m in model.named_modules() if isinstance(m, TuckerLinear) and m.bank is self}
        slices = torch.cat([_slices(weights[n], layer.spec) for n, layer in layers.items()])
        mixture = None
        if self.spec.cores:
            u, mixture, cores, v = tucker(slices, cores=self.spec.cores, rank=self.spec.rank)
            self.cores.weight.copy_(cores.flatten(0, 1))  # type: ignore[union-attr]  # the bank has cores
        else:
            u, cores, v = shared_outer_factors(slices, self.spec.rank)
        self.get_parameter("left_down.weight").copy_(u.T)
        self.get_parameter("right_up.weight").copy_(v.T)
        first = 0
        for layer in layers.values():
            own = slice(first, first + layer.spec.slices)
            if mixture is not None and layer.mix is not None:
                layer.mix.copy_(mixture[own])
            elif isinstance(layer.core, nn.Linear):
                layer.core.weight.copy_(assembled(cores[own].flatten(1), layer.spec))
            first += layer.spec.slices


class TuckerLinear(FactorLinear):
    """A linear layer as a grid of slices over a bank.

    Attributes:
        spec: Sizes and orientation.
        core: Linear layer ``inputs d / D -> outputs d / D`` with the layer's own cores, or None.
        mix: float32 ``[slices, l]``, the layer's rows of ``P``, or None.
        folded: Linear layer with the product of cores and last (or first) factor, or None.
        bias: float32 ``[rows]``, or None where ``folded`` has it.
    """

    spec: TuckerSpec

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

    def weight_modules(self) -> Iterable[nn.Module]:
        """The modules whose numbers the layer computes with; the bank's, too."""
        return [*self.modules(), *self.bank.modules()]

    def evaluated(self, way: Evaluation) -> nn.Module:
        """Returns a layer that computes the same in another way; see :meth:`FactorLinear.evaluated`."""
        return self.with_fold(way) if way in ("up", "down") else super().evaluated(way)

    @torch.no_grad()
    def with_fold(self, fold: Fold) -> TuckerLinear:
        """Returns a layer that computes the same with its cores multiplied into another factor.

        Raises:
            UsageError: If that was done already.
        """
        result = TuckerLinear(dataclasses.replace(self.spec, fold=fold), self.bank)
        if result.folded is None or self.spec.fold != "none":
            raise UsageError(f"a layer folded {self.spec.fold!r} cannot be folded {fold!r}")
        result.folded.get_parameter("weight").copy_(self.folded_weight(fold))
        if self.bias is not None:
            result.set_bias(self.bias)
        return result.train(self.training)

    @torch.no_grad()
    def fill(self, weight: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  # the numbers came with the bank's
        """Returns what the factors stand for: the bank's decomposition gave the layer its numbers."""
        first = weight_of(self.bank.first(transposed=self.spec.transposed))
        folded = self.folded_weight("up")  # [N, inputs d / D]
        return (folded.unflatten(1, (self.spec.grid[1], -1)) @ first).flatten(1)

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


def _slices(weight: torch.Tensor, spec: TuckerSpec) -> torch.Tensor:
    """Cuts a matrix ``[N, K]`` into slices ``[slices, D, D]``, with the side that ``U`` acts on first."""
    (down, across), width = spec.grid, spec.width
    blocks = weight.reshape(down, width, across, width).transpose(1, 2).flatten(0, 1)
    return blocks if spec.transposed else blocks.transpose(1, 2)


@dataclasses.dataclass(frozen=True)
class TuckerSettings(FactorSettings):
    """One Tucker decomposition over the matrices of all blocks.

    Attributes:
        rank: ``d``.
        cores: ``l``, the size of the bank; 0 for a core a slice (III).
        roles: Which matrices take part.
    """

    method = "tucker"
    options = ("rank", "bank", "roles", "fold")
    evaluations = ("auto", "factored", "up", "down", "dense")

    rank: int
    cores: int = 0
    roles: tuple[Role, ...] = ROLES

    @classmethod
    def from_options(cls, options: Any) -> TuckerSettings:
        """Makes settings of a recipe's table; see :meth:`FactorSettings.from_options`."""
        if options.rank is None:
            raise ValueError("tucker needs a rank")
        return cls(options.rank, options.bank, options.roles)

    def plan(self, model: nn.Module, adapter: ModelAdapter) -> dict[str, FactorSpec]:
        """Decides what each layer becomes; see :meth:`FactorSettings.plan`."""
        specs: dict[str, FactorSpec] = {}
        for stack in adapter.stacks:
            bank = f"{stack.blocks.rpartition('.')[0]}.{BANK}".lstrip(".")
            layers: dict[str, TuckerSpec] = {}
            for index in range(stack.depth):
                for matrix in matrices_of(model, adapter, stack, index):
                    if matrix.role in self.roles:
                        layers[matrix.name] = _planned(matrix, bank, stack, self)
            check_rank(f"{bank} of width {stack.width}", self.rank, stack.width)
            slices = sum(layer.slices for layer in layers.values())
            if self.cores > slices:
                raise UsageError(
                    f"{bank}: a bank of {self.cores} cores is larger than the {slices} slices that share it"
                )
            specs[bank] = BankSpec(stack.width, self.rank, self.cores)
            specs |= layers
        return specs


def _planned(matrix: Matrix, bank: str, stack: LayerStack, settings: TuckerSettings) -> TuckerSpec:
    width = stack.width
    for what, size in (("rows", matrix.rows), ("columns", matrix.columns)):
        if size % width:
            raise UsageError(
                f"{matrix.name}: its {size} {what} are no multiple of the hidden size {width}, so it cannot be cut "
                "into slices; use a Kronecker or low-rank factorisation for this model"
            )
    grid = (matrix.rows // width, matrix.columns // width)
    transposed = matrix.role == "expand"
    return TuckerSpec(bank, width, settings.rank, grid, settings.cores, transposed, matrix.bias)


def _costs(spec: TuckerSpec, readers: int) -> dict[Evaluation, Cost]:
    (down, across), width, d = spec.grid, spec.width, spec.rank
    outer, core = width * d, spec.slices * d * d
    # The outer factors are read once for the whole model, and stay in a cache.
    first = outer * across // readers
    return {
        "factored": Cost(first + core + down * outer, core, 3),
        "up": Cost(first + spec.slices * outer, spec.slices * outer, 2),
        "down": Cost(spec.slices * outer + down * outer, spec.slices * outer, 2),
        "dense": dense_cost(spec.rows, spec.columns),
    }


def _fold(model: nn.Module, tokens: int) -> None:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, TuckerLinear)}
    for name, layer in layers.items():
        options = layer.spec.costs(readers=readers_of(name, {name: layer.spec for name, layer in layers.items()}))
        way: Fold = "up" if options["up"].total(tokens) <= options["down"].total(tokens) else "down"
        model.set_submodule(name, layer.with_fold(way))


def _used_factors(model: nn.Module, bank: TuckerBank) -> tuple[str, ...]:
    used = set()
    for module in model.modules():
        if isinstance(module, TuckerLinear) and module.bank is bank:
            fold, transposed = module.spec.fold, module.spec.transposed
            if fold != "down":
                used.add("right_down" if transposed else "left_down")
            if fold != "up":
                used.add("left_up" if transposed else "right_up")
    return tuple(factor for factor in OUTER_FACTORS if factor in used)


def _untie(bank: TuckerBank, used: tuple[str, ...]) -> None:
    """Gives every factor that is used weights of its own, and drops what nothing reads."""
    layers = {factor: bank.get_submodule(factor) for factor in used}
    for factor in OUTER_FACTORS:
        layer = layers.get(factor)
        if isinstance(layer, TransposedLinear):
            weight = layer.weight
            own = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
            own.weight.copy_(weight)
            layer = own
        layers[factor] = layer  # type: ignore[assignment]  # None for what is dropped
    for factor, layer in layers.items():
        setattr(bank, factor, layer)
    bank.spec = dataclasses.replace(bank.spec, factors=used)


def _drop_unused_cores(model: nn.Module) -> None:
    """Removes the cores of banks whose layers are all folded."""
    mixing = {id(m.bank) for m in model.modules() if isinstance(m, TuckerLinear) and m.mix is not None}
    for module in model.modules():
        if isinstance(module, TuckerBank) and module.cores is not None and id(module) not in mixing:
            module.cores = None
            module.spec = dataclasses.replace(module.spec, cores=0)
