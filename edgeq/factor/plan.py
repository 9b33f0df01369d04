"""Which layers of a model become which factors; refuses what cannot be before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import nn

from edgeq.errors import UnsupportedError, UsageError
from edgeq.factor.settings import (
    BlockChoice,
    FactorSettings,
    KroneckerSettings,
    KroneckerShape,
    LowRankSettings,
    Role,
    TuckerSettings,
)
from edgeq.factor.specs import (
    BankSpec,
    BlockSpec,
    EmbeddingSpec,
    HeadSpec,
    KroneckerSpec,
    LayerSpec,
    LowRankSpec,
    TuckerSpec,
    check_divides,
    check_rank,
)
from edgeq.models import LayerStack, ModelAdapter
from edgeq.quant.float_layers import weight_rows

BANK = "bank"
"""What a bank is called inside the module that holds the blocks."""


@dataclasses.dataclass(frozen=True)
class _Matrix:
    """One linear layer of a block.

    ``parts`` is 3 where the layer makes queries, keys and values at once.
    """

    name: str
    rows: int
    columns: int
    parts: int
    bias: bool

    @property
    def role(self) -> Role:
        height = self.rows // self.parts
        return "attention" if height == self.columns else "expand" if height > self.columns else "contract"


def plan_factors(model: nn.Module, adapter: ModelAdapter, settings: FactorSettings) -> dict[str, LayerSpec]:
    """Resolves settings for one model.

    Args:
        model: A float model; only the shapes of its weights are read.
        adapter: Its adapter.
        settings: What to do.

    Returns:
        What each layer becomes, by module name; a bank comes before the layers on it.

    Raises:
        UsageError: If shapes do not divide, a rank is too large or a block is not there.
        UnsupportedError: If the model's table cannot be factorised.
    """
    if isinstance(settings, TuckerSettings):
        return _tucker(model, adapter, settings)
    specs: dict[str, LayerSpec] = {}
    for stack in adapter.stacks:
        for index in _chosen(settings.blocks, stack):
            for matrix in _matrices(model, adapter, stack, index):
                if isinstance(settings, KroneckerSettings):
                    if matrix.role in settings.shapes:
                        specs[matrix.name] = _kronecker(matrix, settings.shapes[matrix.role])
                elif matrix.role in settings.roles:
                    specs[matrix.name] = _low_rank(matrix, settings)
    if isinstance(settings, KroneckerSettings) and settings.embedding_factor > 1:
        specs |= _table(model, adapter, settings.embedding_factor)
    return specs


def _chosen(blocks: BlockChoice, stack: LayerStack) -> list[int]:
    known = range(stack.depth)
    if blocks == "all":
        return list(known)
    if blocks in ("odd", "even"):
        return [index for index in known if index % 2 == (blocks == "odd")]
    for index in blocks:
        if index not in known:
            raise UsageError(
                f"the recipe factorises block {index} of the {stack.name}, which has {stack.depth}, counted from 0"
            )
    return [int(index) for index in blocks]


def _matrices(model: nn.Module, adapter: ModelAdapter, stack: LayerStack, index: int) -> Iterator[_Matrix]:
    block = stack.block(index)
    parts = {f"{block}.{tap.query}": tap.parts for tap in stack.attentions}
    for name in adapter.linear_names:
        if name.startswith(f"{block}."):
            module = model.get_submodule(name)
            rows, columns = weight_rows(module).shape
            yield _Matrix(name, rows, columns, parts.get(name, 1), getattr(module, "bias", None) is not None)


def _kronecker(matrix: _Matrix, shape: KroneckerShape) -> KroneckerSpec | BlockSpec:
    rows, columns = matrix.rows // matrix.parts, matrix.columns
    right = shape.right
    if right is None:
        left = shape.left or (rows, columns)
        check_divides(f"{matrix.name}: rows of the left Kronecker factor", rows, left[0])
        check_divides(f"{matrix.name}: columns of the left Kronecker factor", columns, left[1])
        right = (rows // left[0], columns // left[1])
    spec = KroneckerSpec.with_right(matrix.name, rows, columns, right, terms=shape.terms, bias=matrix.bias)
    return spec if matrix.parts == 1 else BlockSpec((matrix.parts, 1), spec, matrix.bias)


def _low_rank(matrix: _Matrix, settings: LowRankSettings) -> LowRankSpec | BlockSpec:
    rows, columns = matrix.rows // matrix.parts, matrix.columns
    grid = (matrix.parts, 1)
    if settings.sliced and rows != columns:
        width = min(rows, columns)
        check_divides(f"{matrix.name}: slices", max(rows, columns), width)
        grid = (grid[0] * rows // width, columns // width)
        rows = columns = width
    check_rank(matrix.name, settings.rank, min(rows, columns))
    whole_rows = grid[1] == 1  # otherwise several blocks add up to one output
    spec = LowRankSpec(rows, columns, settings.rank, core=settings.sliced, bias=whole_rows and matrix.bias)
    return spec if grid == (1, 1) else BlockSpec(grid, spec, matrix.bias)


def _table(model: nn.Module, adapter: ModelAdapter, factor: int) -> dict[str, LayerSpec]:
    name = adapter.embedding_names[0]  # the vocabulary is every family's first table
    rows, columns = weight_rows(model.get_submodule(name)).shape
    check_divides(f"{name}: factor of the table", columns, factor)
    uses = [user for user, table in adapter.tied_names.items() if table == name]
    if other := [use for use in uses if use not in adapter.linear_names]:
        raise UnsupportedError(f"{name} cannot be factorised, because {other[0]} looks up the same table")
    return {name: EmbeddingSpec(rows, columns, factor), **{use: HeadSpec(name) for use in uses}}


def _tucker(model: nn.Module, adapter: ModelAdapter, settings: TuckerSettings) -> dict[str, LayerSpec]:
    specs: dict[str, LayerSpec] = {}
    for stack in adapter.stacks:
        bank = f"{stack.blocks.rpartition('.')[0]}.{BANK}".lstrip(".")
        layers: dict[str, TuckerSpec] = {}
        for index in range(stack.depth):
            for matrix in _matrices(model, adapter, stack, index):
                if matrix.role in settings.roles:
                    layers[matrix.name] = _tucker_layer(matrix, bank, stack, settings)
        check_rank(f"{bank} of width {stack.width}", settings.rank, stack.width)
        slices = sum(layer.slices for layer in layers.values())
        if settings.cores > slices:
            raise UsageError(
                f"{bank}: a bank of {settings.cores} cores is larger than the {slices} slices that share it"
            )
        specs[bank] = BankSpec(stack.width, settings.rank, settings.cores)
        specs |= layers
    return specs


def _tucker_layer(matrix: _Matrix, bank: str, stack: LayerStack, settings: TuckerSettings) -> TuckerSpec:
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


def parameters_of(specs: Mapping[str, LayerSpec]) -> int:
    """Returns the numbers that factorised layers store, biases included."""
    return sum(spec.parameters for spec in specs.values())
