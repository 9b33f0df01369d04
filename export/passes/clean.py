"""Removes from a traced graph what depends on the machine or the folder, and what nothing reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

import edgeq


def drop_dead_code(model: ir.Model) -> int:
    """Turns constants into initializers, removes identities and what is unused; returns how many nodes went."""
    before = len(model.graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    return before - len(model.graph)


def share_derived_constants(model: ir.Model) -> int:
    """Keeps one of equal constants that torch computed from weights, such as the turned matrix of a layer run twice.

    Constants of the checkpoint keep their names, also where two of them are equal; torch numbers the others.

    Args:
        model: Changed in place, before its constants are named.

    Returns:
        The number of constants removed.
    """
    kept: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    removed = 0
    for name, value in list(model.graph.initializers.items()):
        if "." in name or value.const_value is None:
            continue
        array = value.const_value.numpy()
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first, replace_graph_outputs=True)
            del model.graph.initializers[name]
            removed += 1
    return removed


def strip_origin(model: ir.Model) -> int:
    """Removes metadata (source paths, stack traces) and names edgeq as the producer.

    Without this the bytes of the file depend on where the checkpoint and the packages lie.
    """
    result = common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "edgeq", edgeq.__version__
    model.domain, model.doc_string = None, None
    return int(result.modified)


def plain_dimensions(model: ir.Model, interface: Mapping[str, Sequence[str | int]]) -> int:
    """Names the dimensions of inputs and outputs, and replaces all others, such as ``Min(512, sequence)``.

    ONNX knows names, not expressions: two equal expressions spelled differently would count as
    different dimensions, and shape inference finds these values by itself.

    Args:
        model: Changed in place.
        interface: For each graph input and output, its leading dimensions, with the names that users know.

    Returns:
        The number of shapes rewritten.
    """
    count = 0
    known = {size for sizes in interface.values() for size in sizes if isinstance(size, str)}
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape([size if _is_known(size, known) else None for size in value.shape])
                count += 1
    for value in (*model.graph.inputs, *model.graph.outputs):
        leading = interface[str(value.name)]
        if value.shape is not None:
            value.shape = ir.Shape([*leading, *list(value.shape)[len(leading) :]])
            count += 1
    return count


def _is_known(size: int | ir.SymbolicDim, names: set[str]) -> bool:
    return isinstance(size, int) or size.value in names
