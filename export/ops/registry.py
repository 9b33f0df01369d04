"""Which custom operators exist, and how their bodies get into a model."""

from __future__ import annotations

import atexit

import onnx

from edgeq.discovery import modules_of
from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.ops.operator import NodeFormat, Operator, node_attributes
from edgeq.formats.low_bit import OP_DOMAIN, OP_VERSION, packed_matrix_of

OPERATORS: dict[str, Operator] = {
    module.OPERATOR.name: module.OPERATOR for module in modules_of("edgeq.export.ops") if hasattr(module, "OPERATOR")
}
"""The operators that the files of this folder define, by name."""

for _operator in OPERATORS.values():
    if not onnx.defs.has(_operator.name, OP_DOMAIN):
        onnx.defs.register_schema(_operator.schema)
        # Shape inference is a Python function. onnx 1.20 frees schemas after Python has ended, and crashes.
        atexit.register(onnx.defs.deregister_schema, _operator.name, _operator.schema.since_version, OP_DOMAIN)


def operator_for(node: onnx.NodeProto) -> Operator:
    """Returns the operator of a node in domain ``ai.edgeq``.

    Raises:
        UnsupportedError: If edgeq has no operator of that type.
    """
    if node.op_type not in OPERATORS:
        raise UnsupportedError(f"node {node.name} is {OP_DOMAIN}::{node.op_type}; edgeq knows {', '.join(OPERATORS)}")
    return OPERATORS[node.op_type]


def is_low_bit(node: onnx.NodeProto) -> bool:
    """Tells whether a node belongs to domain ``ai.edgeq``."""
    return str(node.domain) == OP_DOMAIN


def reads_matrix(node: onnx.NodeProto) -> bool:
    """Tells whether a node is of domain ``ai.edgeq`` and reads a packed matrix."""
    return is_low_bit(node) and operator_for(node).variant is not None


def node_format(node: onnx.NodeProto, initializers: dict[str, onnx.TensorProto]) -> NodeFormat:
    """Describes the packed matrix of a node of domain ``ai.edgeq``.

    Args:
        node: A LowBitLinear or LowBitEmbedding node.
        initializers: The graph's constants by name; the node's scale must be among them.

    Raises:
        FormatError: If an input is missing, the scale is not a constant or an attribute is wrong.
    """
    if len(node.input) < 3:
        raise FormatError(f"{node.op_type} node {node.name} needs at least 3 inputs, found {len(node.input)}")
    scale = initializers.get(node.input[2])
    if scale is None:
        raise FormatError(f"the scale {node.input[2]} of node {node.name} must be an initializer")
    attributes = node_attributes(node)
    try:
        matrix = packed_matrix_of(attributes, scales=int(scale.dims[0]) if len(scale.dims) == 1 else 0)
    except FormatError as error:
        raise FormatError(f"node {node.name}: {error}") from None
    return NodeFormat(matrix=matrix, activation=str(attributes.get("activation", "none")))


def attach_bodies(model: onnx.ModelProto) -> list[str]:
    """Appends one function per operator that the model uses, and per variant where variants are mixed.

    The functions are sorted by name, and use the model's own version of the standard operators, which
    the ONNX checker demands. Only a model that mixes variants of an operator needs overloads: ONNX
    Runtime before 1.27 and the ONNX reference evaluator run any of them for all nodes.

    Args:
        model: Changed in place; functions of domain ``ai.edgeq`` that it already holds are replaced.

    Returns:
        The functions attached, as ``operator`` or ``operator:overload``.

    Raises:
        FormatError: If a node is malformed or the model does not import the standard operators.
        UnsupportedError: If a node of domain ``ai.edgeq`` is not one of ours.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if "" not in versions:
        raise FormatError("the model does not say which version of the standard operators it uses")
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    uses: dict[str, dict[str, list[tuple[onnx.NodeProto, NodeFormat | None]]]] = {}
    for node in model.graph.node:
        if is_low_bit(node):
            operator = operator_for(node)
            described = None if operator.variant is None else node_format(node, initializers)
            variant = "" if operator.variant is None or described is None else operator.variant(described)
            uses.setdefault(operator.name, {}).setdefault(variant, []).append((node, described))
    bodies = []
    for name, variants in sorted(uses.items()):
        for variant, members in sorted(variants.items()):
            formats = [described for _, described in members if described is not None]
            body = OPERATORS[name].body(formats, versions[""])
            body.overload = variant if len(variants) > 1 else ""
            for node, _ in members:
                node.overload = body.overload
            bodies.append(body)
    kept = [function for function in model.functions if function.domain != OP_DOMAIN]
    del model.functions[:]
    model.functions.extend([*kept, *bodies])
    if bodies and OP_DOMAIN not in versions:
        model.opset_import.append(onnx.helper.make_opsetid(OP_DOMAIN, OP_VERSION))
    return [f"{body.name}:{body.overload}" if body.overload else body.name for body in bodies]
