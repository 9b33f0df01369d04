"""What a factorised layer costs to compute: multiply-adds and bytes read, for each way to compute it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from edgeq.factor.specs import BlockSpec, KroneckerSpec, LayerSpec, LowRankSpec, TuckerSpec

Evaluation = Literal["factored", "up", "down", "dense"]
"""As stored; with the cores multiplied into the last or the first factor beforehand; as the dense matrix."""

MACS_PER_BYTE = 8
"""Float multiply-adds that a core does while it reads one byte of weights from memory."""
MACS_PER_PRODUCT = 100_000
"""The same for starting one more product: a call, and a pass over its input and output."""
_FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of one layer.

    Attributes:
        macs: Multiply-adds a token.
        weights: Numbers read for any number of tokens.
        products: Matrix products.
    """

    macs: int
    weights: int
    products: int

    def total(self, tokens: int) -> float:
        """Returns all of it for a number of tokens, in multiply-adds."""
        return self.macs * tokens + MACS_PER_BYTE * _FLOAT_BYTES * self.weights + MACS_PER_PRODUCT * self.products


def costs(spec: LayerSpec, *, readers: int = 1) -> dict[Evaluation, Cost]:
    """Returns the cost of each way to compute a layer; empty for what is no layer of its own.

    Args:
        spec: The layer.
        readers: Layers that read the same input with the same first factor, which is then computed once.
    """
    if isinstance(spec, TuckerSpec):
        return _tucker(spec, readers) if spec.fold == "none" else {}
    if isinstance(spec, KroneckerSpec):
        shapes = [(times, rows, columns) for times, rows, columns in spec.products]
    elif isinstance(spec, LowRankSpec):
        shapes = [(1, spec.rank, spec.columns), (1, spec.rows, spec.rank)]
        shapes += [(1, spec.rank, spec.rank)] if spec.core else []
    elif isinstance(spec, BlockSpec):
        part = costs(spec.part)["factored"]
        blocks = math.prod(spec.grid)
        factored = Cost(blocks * part.macs, blocks * part.weights, blocks * part.products)
        return {"factored": factored, "dense": _dense(spec.rows, spec.columns)}
    else:
        return {}
    factored = Cost(
        sum(times * rows * columns for times, rows, columns in shapes),
        sum(rows * columns for _, rows, columns in shapes),
        len(shapes),
    )
    return {"factored": factored, "dense": _dense(spec.rows, spec.columns)}


def cheapest(options: dict[Evaluation, Cost], tokens: int) -> Evaluation:
    """Returns the cheapest way for a number of tokens that does not make the dense matrix."""
    return min((way for way in options if way != "dense"), key=lambda way: options[way].total(tokens))


def _dense(rows: int, columns: int) -> Cost:
    return Cost(rows * columns, rows * columns, 1)


def _tucker(spec: TuckerSpec, readers: int) -> dict[Evaluation, Cost]:
    (down, across), width, d = spec.grid, spec.width, spec.rank
    outer, core = width * d, spec.slices * d * d
    # The outer factors are read once for the whole model, and stay in a cache.
    first = outer * across // readers
    return {
        "factored": Cost(first + core + down * outer, core, 3),
        "up": Cost(first + spec.slices * outer, spec.slices * outer, 2),
        "down": Cost(spec.slices * outer + down * outer, spec.slices * outer, 2),
        "dense": _dense(spec.rows, spec.columns),
    }
