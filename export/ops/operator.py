"""What one custom operator consists of, and the small parts that the operators share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import onnx

from edgeq.formats.low_bit import OP_DOMAIN, OP_VERSION, PackedMatrix


@dataclasses.dataclass(frozen=True)
class NodeFormat:
    """What decides which body a node needs.

    Attributes:
        matrix: The packed matrix that the node reads.
        activation: ``none``, ``dynamic`` or ``static``; ``none`` for operators that have no such attribute.
    """

    matrix: PackedMatrix
    activation: str


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of domain ``ai.edgeq``.

    Attributes:
        schema: The ONNX schema, with its shape inference attached.
        reference: Numpy meaning: arrays in input order, then the node's attributes by keyword.
        variant: What a body cannot read from attributes: nodes of different variants need different bodies. None for
            an operator that reads no packed matrix, and has one body.
        body: FunctionProto in standard operators that fits all given nodes, which are of one variant, at a
            given opset (18 or later).
    """

    schema: onnx.defs.OpSchema
    reference: Callable[..., Any]
    variant: Callable[[NodeFormat], str] | None
    body: Callable[[Sequence[NodeFormat], int], onnx.FunctionProto]

    @property
    def name(self) -> str:
        """The operator's type, e.g. ``LowBitLinear``."""
        return str(self.schema.name)


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Decodes the attributes of a node; bytes become ``str``."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def operator_schema(
    name: str,
    doc: str,
    *,
    inputs: Sequence[onnx.defs.OpSchema.FormalParameter],
    output: str,
    attributes: Sequence[onnx.defs.OpSchema.Attribute],
    infer: Callable[[Any], None],
) -> onnx.defs.OpSchema:
    """Declares an operator with one float32 output.

    Args:
        name: Its type.
        doc: What it computes.
        inputs: What :func:`schema_input` returned, in their order.
        output: Shape of the output.
        attributes: What :func:`schema_attribute` returned.
        infer: Its shape inference.
    """
    made = onnx.defs.OpSchema(
        name,
        OP_DOMAIN,
        OP_VERSION,
        doc,
        inputs=list(inputs),
        outputs=[schema_input("Y", "T", output)],
        type_constraints=[("T", ["tensor(float)"], "float32")],
        attributes=list(attributes),
    )
    made.set_type_and_shape_inference_function(infer)
    return made


def schema_input(
    name: str, kind: str, description: str, *, optional: bool = False
) -> onnx.defs.OpSchema.FormalParameter:
    """Declares an input of a schema; kind is ``T`` for float32, or such as ``tensor(uint8)``."""
    options = onnx.defs.OpSchema.FormalParameterOption
    option = options.Optional if optional else options.Single
    return onnx.defs.OpSchema.FormalParameter(name, kind, description=description, param_option=option)


def schema_attribute(name: str, kind: str, description: str) -> onnx.defs.OpSchema.Attribute:
    """Declares one required attribute of a schema; kind is ``INT``, ``FLOAT`` or ``STRING``."""
    attribute_type = getattr(onnx.defs.OpSchema.AttrType, kind)
    return onnx.defs.OpSchema.Attribute(name, attribute_type, description, required=True)


MATRIX_ATTRIBUTES = (
    schema_attribute("N", "INT", "rows of the matrix"),
    schema_attribute("K", "INT", "columns of the matrix"),
    schema_attribute("bits", "INT", "bits of a code: 1, 2, 4 or 8"),
    schema_attribute("zero_point", "FLOAT", "code that stands for 0"),
)
"""What every operator on a packed matrix says of it."""


def inferred_attributes(context: Any, names: list[str]) -> dict[str, Any]:
    """Reads attributes inside a shape inference function."""
    found = {name: context.get_attribute(name) for name in names}
    present = {name: value for name, value in found.items() if value is not None and value.name}
    return {name: onnx.helper.get_attribute_value(value) for name, value in present.items()}


def set_float_output(context: Any, leading: list[onnx.TensorShapeProto.Dimension] | None, last: int) -> None:
    """Declares output 0 as float32 of shape ``[*leading, last]``; of unknown rank without ``leading``."""
    result = onnx.TypeProto()
    result.tensor_type.elem_type = onnx.TensorProto.FLOAT
    if leading is not None:
        for dimension in leading:
            result.tensor_type.shape.dim.add().CopyFrom(dimension)
        result.tensor_type.shape.dim.add().dim_value = last
    context.set_output_type(0, result)


def dimensions(context: Any, index: int) -> list[onnx.TensorShapeProto.Dimension] | None:
    """Returns the dimensions of input ``index`` inside a shape inference function, or None if unknown."""
    kind = context.get_input_type(index)
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return list(kind.tensor_type.shape.dim)


def check_packed_shape(context: Any, index: int, matrix: PackedMatrix) -> None:
    """Refuses packed weights whose static shape is not that of ``matrix``."""
    found = dimensions(context, index)
    if found is None or not all(item.HasField("dim_value") for item in found):
        return
    shape = tuple(item.dim_value for item in found)
    if shape != matrix.packed_shape:
        raise onnx.shape_inference.InferenceError(
            f"[ShapeInferenceError] packed weights of a {matrix.rows} x {matrix.columns} matrix of "
            f"{matrix.bits}-bit codes have shape {matrix.packed_shape}, found {shape}"
        )
