"""``ai.edgeq::LowBitEmbedding``: rows of a packed low-bit table.

``Y[..., :] = scale[id] * (code[id, :] - zero_point)``. The body gathers packed rows before it decodes
them, so that no runtime unfolds the whole table to floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from edgeq.export.ops.body import Body
from edgeq.export.ops.operator import (
    MATRIX_ATTRIBUTES,
    NodeFormat,
    Operator,
    check_packed_shape,
    dimensions,
    inferred_attributes,
    operator_schema,
    schema_input,
    set_float_output,
)
from edgeq.formats.low_bit import packed_matrix_of
from edgeq.formats.packing import unpack

NAME = "LowBitEmbedding"
INPUTS = ["ids", "W_packed", "scale"]
ATTRIBUTES = ["N", "K", "bits", "zero_point"]


def reference(ids: np.ndarray, packed: np.ndarray, scale: np.ndarray, **attributes: Any) -> np.ndarray:
    """Numpy meaning of the operator.

    Args:
        ids: int64 row numbers, any shape.
        packed: uint8 in layout ``n16k4``.
        scale: float32, shape ``[N]`` or ``[1]``.
        **attributes: N, K, bits, zero_point.

    Returns:
        float32, shape ``[*ids.shape, K]``.

    Raises:
        FormatError: If the attributes do not describe a format edgeq has, or ``packed`` is not such a matrix.
    """
    matrix = packed_matrix_of(attributes)
    codes = unpack(packed, matrix.bits, rows=matrix.rows, columns=matrix.columns)
    row_scale = np.broadcast_to(scale, (matrix.rows,))[ids][..., None]
    return row_scale * (codes[ids].astype(np.float32) - np.float32(matrix.zero_point))


def variant(_: NodeFormat) -> str:
    """Returns the same for all: one body serves every table."""
    return ""


def body(_: Sequence[NodeFormat], opset: int) -> onnx.FunctionProto:
    """Returns the operator's meaning in standard operators of ``opset`` (18 or later)."""
    build = Body()
    by_row = build.node("Transpose", ["W_packed"], "by_row", perm=[0, 2, 1, 3])
    table = build.node("Flatten", [by_row], "table", axis=2)  # one row of bytes a table row
    picked = build.node("Gather", [table, "ids"], "picked", axis=0)
    tail = build.constant(np.array([-1, 1, 4], np.int64), "tail")
    leading = build.node("Shape", ["ids"], "leading")
    blocks = build.node("Concat", [leading, tail], "blocks_shape", axis=0)
    spread = build.node("Reshape", [picked, blocks], "spread")  # [..., K/4F, 1, 4]
    fields = build.fields(spread, "fields")
    rest = build.constant(np.array([-1], np.int64), "last_axis")
    rows = build.node("Concat", [leading, rest], "rows_shape", axis=0)
    padded = build.node("Reshape", [fields, rows], "padded")
    zero_start = build.constant(np.zeros(1, np.int64), "start")
    codes = build.node("Slice", [padded, zero_start, build.size("K", "columns"), rest], "codes")
    level = build.node("Cast", [codes], "levels", to=onnx.TensorProto.FLOAT)
    centred = build.node("Sub", [level, build.attribute("zero_point", "zero", kind="float")], "centred")
    row_scale = build.node("Expand", ["scale", build.size("N", "table_rows")], "row_scale")  # [1] or [N]
    one_a_token = build.node("Gather", [row_scale, "ids"], "token_scale", axis=0)
    factor = build.node("Unsqueeze", [one_a_token, rest], "factor")
    build.node("Mul", [factor, centred], "Y")
    return build.function(
        NAME,
        opset=opset,
        inputs=INPUTS,
        outputs=["Y"],
        attributes=ATTRIBUTES,
        doc="Y = scale[id] * (code[id] - zero_point) on n16k4-packed codes",
    )


def _infer_shape(context: Any) -> None:
    matrix = packed_matrix_of(inferred_attributes(context, ATTRIBUTES))
    check_packed_shape(context, 1, matrix)
    set_float_output(context, dimensions(context, 0), matrix.columns)


_SCHEMA = operator_schema(
    NAME,
    __doc__ or "",
    inputs=[
        schema_input("ids", "tensor(int64)", "row numbers, any shape"),
        schema_input("W_packed", "tensor(uint8)", "codes in layout n16k4"),
        schema_input("scale", "T", "[N] or [1]"),
    ],
    output="[*ids.shape, K]",
    attributes=MATRIX_ATTRIBUTES,
    infer=_infer_shape,
)

OPERATOR = Operator(schema=_SCHEMA, reference=reference, variant=variant, body=body)
