"""Operators on rows: look-ups, normalisation, element-wise functions, and what knows about sequences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import Constant

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.converters.kernel_calls import Converter, KernelCalls, is_size, shape_of, tensor
from edgeq.targets.compiler.converters.linear import packed_matrix, row_codes
from edgeq.targets.compiler.kernels.elementwise import elementwise, product, scaled
from edgeq.targets.compiler.kernels.gather_rows import gather_columns, gather_panel_rows, gather_rows
from edgeq.targets.compiler.kernels.layer_norm import layer_norm
from edgeq.targets.compiler.kernels.low_bit_embedding import low_bit_embedding as low_bit_embedding_kernel
from edgeq.targets.compiler.kernels.quantized_layer_norm import quantized_layer_norm
from edgeq.targets.compiler.kernels.rotary import Turns, rotary
from edgeq.targets.compiler.kernels.sequence import last_token as last_token_kernel
from edgeq.targets.compiler.kernels.sequence import token_positions as token_positions_kernel
from edgeq.targets.compiler.passes.cache import LAST_TOKEN, TOKEN_POSITIONS
from edgeq.targets.compiler.passes.relative_scores import GATHER_COLUMNS
from edgeq.targets.compiler.passes.residual import RESIDUAL_LAYER_NORM
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER

FLOAT_PRODUCT = "FloatProduct"
"""``Mul`` of float rows."""


def low_bit_embedding(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``LowBitEmbedding``."""
    ids, table, scale = inputs
    matrix = packed_matrix(attrs, table, scale)
    lead = shape_of(ids)
    return calls.call(
        ("low_bit_embedding", matrix, len(lead)),
        lambda: low_bit_embedding_kernel(matrix, rank=len(lead)),
        [ids, table, scale],
        tensor([*lead, matrix.columns]),
    )


def float_embedding(calls: KernelCalls, table: Any, ids: Any) -> Any:
    """Rows of a float table that is a weight of the model."""
    rows, columns = (int(d) for d in shape_of(table))
    lead = shape_of(ids)
    return calls.call(
        ("gather_rows", rows, columns, len(lead)),
        lambda: gather_rows(rows, columns, rank=len(lead)),
        [table, ids],
        tensor([*lead, columns]),
    )


def panel_embedding(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``PanelGather``: rows of a float table that is stored for a matmul."""
    panels, ids = inputs
    rows, columns = int(attrs["rows"]), int(shape_of(panels)[1])
    lead = shape_of(ids)
    return calls.call(
        ("gather_panel_rows", rows, columns, len(lead)),
        lambda: gather_panel_rows(rows, columns, rank=len(lead)),
        [panels, ids],
        tensor([*lead, columns]),
    )


def pick_columns(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``GatherColumns``: for each row of scores some of its columns, the same in every batch and head.

    Raises:
        UnsupportedError: If the columns differ between batches or heads.
    """
    scores, columns = inputs
    if len(shape_of(scores)) != 4 or not all(is_size(size, 1) for size in shape_of(columns)[:-2]):
        raise UnsupportedError(
            f"{attrs['name']}: columns of shape {shape_of(columns)} of scores of shape {shape_of(scores)} have no "
            "kernel, only columns [1, 1, queries, keys] of scores [batch, heads, queries, columns]"
        )
    return calls.call(
        ("gather_columns",), gather_columns, inputs, tensor([*shape_of(scores)[:3], shape_of(columns)[-1]])
    )


def normalise(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``LayerNormalization`` over the last axis."""
    return _normalise(calls, inputs[:1], [*inputs[1:], None][:2], attrs)


def add_and_normalise(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``ResidualLayerNormalization``: the sum of the first two inputs, normalised."""
    return _normalise(calls, inputs[:2], [*inputs[2:], None][:2], attrs)


def divide_by_mean_square(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``RMSNormalization`` over the last axis."""
    return _normalise(calls, inputs[:1], [inputs[1], None], attrs, centred=False)


def _normalise(
    calls: KernelCalls, addends: list[Any], parameters: list[Any], attrs: dict[str, Any], *, centred: bool = True
) -> Any:
    *lead, last = shape_of(addends[0])
    columns, residual = int(last), len(addends) == 2
    if attrs.get("axis", -1) not in (-1, len(lead)):
        raise UnsupportedError(
            f"{attrs['name']}: layer normalisation over axis {attrs['axis']} has no kernel, only over the last"
        )
    gamma, beta = parameters
    if beta is None:
        beta = relax.const(np.zeros(columns, np.float32))
    epsilon = float(attrs.get("epsilon", 1e-5))
    name = ("residual_layer_norm" if residual else "layer_norm") if centred else "rms_norm"
    options: dict[str, Any] = {"rank": len(lead), "epsilon": epsilon, "residual": residual, "centred": centred}
    if attrs.get("quantized", 0):
        call = calls.call(
            (name, columns, len(lead), epsilon, "quantized"),
            lambda: quantized_layer_norm(columns, **options),
            [*addends, gamma, beta],
            [tensor([*lead, columns]), *row_codes(lead, columns)],
        )
        rows, *codes = calls.parts(call, 4)
        calls.quantized[rows, None] = codes
        return rows
    return calls.call(
        (name, columns, len(lead), epsilon),
        lambda: layer_norm(columns, **options),
        [*addends, gamma, beta],
        tensor([*lead, columns]),
    )


def gelu(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Gelu``, exact or with tanh."""
    return _elementwise(calls, "GeluTanh" if attrs.get("approximate", "none") == "tanh" else "Gelu", inputs)


def multiply(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Mul`` of floats: two tensors of one shape, or a tensor and a number that is known."""
    x, factor = sorted(inputs, key=_is_number)
    *lead, last = shape_of(x)
    if _is_number(factor):
        number = float(factor.value.numpy().reshape(()))
        return calls.call(
            ("scaled", int(last), len(lead), number),
            lambda: scaled(number, int(last), rank=len(lead)),
            [x],
            tensor([*lead, last]),
        )
    if [str(size) for size in shape_of(x)] != [str(size) for size in shape_of(factor)]:
        raise UnsupportedError(
            f"{attrs['name']}: multiplying tensors of shape {shape_of(x)} and {shape_of(factor)} has no kernel, "
            "only of equal shapes, or with one number"
        )
    return calls.call(
        ("product", int(last), len(lead)),
        lambda: product(int(last), rank=len(lead)),
        [x, factor],
        tensor([*lead, last]),
    )


def split(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Split`` of columns: each part is a tensor of its own.

    Raises:
        UnsupportedError: If another axis is split, or the sizes are not known.
    """
    *lead, last = shape_of(inputs[0])
    parts = int(attrs["outputs"])
    sizes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else None
    if attrs.get("axis", 0) not in (-1, len(lead)) or not isinstance(sizes, Constant | None):
        raise UnsupportedError(f"{attrs['name']}: this form of Split is not supported, only columns in known parts")
    widths = [-(-int(last) // parts)] * parts if sizes is None else [int(size) for size in sizes.value.numpy()]
    found, first = [], 0
    for width in widths:
        end = min(first + width, int(last))
        found.append(calls.builder.emit(relax.op.strided_slice(inputs[0], [len(lead)], [first], [end])))
        first = end
    return relax.Tuple(found)


def turn(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``RotaryEmbedding``: pairs of columns turned by angles that are looked up by position.

    Raises:
        UnsupportedError: If neighbouring columns are pairs, or rows of the tables are given instead of positions.
    """
    x, cosines = inputs[:2]
    heads = int(attrs.get("num_heads", 0))
    if len(inputs) < 4 or len(shape_of(x)) != 3 or heads == 0 or attrs.get("interleaved", 0):
        raise UnsupportedError(
            f"{attrs['name']}: this form of RotaryEmbedding has no kernel, only halves of heads of "
            "[batch, sequence, width], with positions"
        )
    positions, pairs = (int(size) for size in shape_of(cosines))
    turns = Turns(heads, int(shape_of(x)[-1]) // heads, pairs, positions)
    return calls.call(
        ("rotary", *dataclasses.astuple(turns)), lambda: rotary(turns), inputs[:4], tensor(shape_of(x))
    )


def _on_each(name: str) -> Converter:
    """The converter of an operator that is a function of each element."""

    def convert(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        return _elementwise(calls, name, inputs)

    return convert


def _elementwise(calls: KernelCalls, name: str, inputs: list[Any]) -> Any:
    *lead, last = shape_of(inputs[0])
    return calls.call(
        (name.lower(), int(last), len(lead)),
        lambda: elementwise(name, int(last), rank=len(lead)),
        inputs,
        tensor([*lead, last]),
    )


def _is_number(value: Any) -> bool:
    """Whether a value is a constant of one element."""
    return isinstance(value, tvm.ir.GenericConst) and all(is_size(size, 1) for size in shape_of(value))


def token_positions(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``TokenPositions``: position of each new token, from the length of its past."""
    offset = int(attrs["offset"])
    return calls.call(
        ("token_positions", offset),
        lambda: token_positions_kernel(offset),
        inputs,
        tensor(shape_of(inputs[0]), "int64"),
    )


def last_token(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``LastToken``: the row of each sequence's last new token."""
    del attrs
    batch, _, columns = shape_of(inputs[0])
    return calls.call(
        ("last_token", int(columns)), lambda: last_token_kernel(int(columns)), inputs, tensor([batch, columns])
    )


CONVERTERS: dict[str, Converter] = {
    "Erf": _on_each("Erf"),
    FLOAT_PRODUCT: multiply,
    GATHER_COLUMNS: pick_columns,
    "Gelu": gelu,
    LAST_TOKEN: last_token,
    "LayerNormalization": normalise,
    "LowBitEmbedding": low_bit_embedding,
    PANEL_GATHER: panel_embedding,
    "RMSNormalization": divide_by_mean_square,
    "Relu": _on_each("Relu"),
    RESIDUAL_LAYER_NORM: add_and_normalise,
    "RotaryEmbedding": turn,
    "Sigmoid": _on_each("Sigmoid"),
    "Silu": _on_each("Silu"),
    "Split": split,
    "Tanh": _on_each("Tanh"),
    TOKEN_POSITIONS: token_positions,
}
