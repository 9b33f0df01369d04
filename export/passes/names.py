"""Names that a reader of the file understands: the module that a node came from.

torch numbers its values (``_symbolic_7``); a profile, a parity report or a graph viewer wants to say
``encoder.layer.0.attention.self.query/LowBitLinear``. torch records the module of every node in metadata
that is stripped from the file afterwards, so names are given before.
"""

from __future__ import annotations

import ast
import collections

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_by_module(model: ir.Model, *, prefix: str = "model.") -> int:
    """Names nodes ``module/OpType`` and their outputs alike, and constants as the checkpoint names them.

    Args:
        model: Changed in place; graph inputs and outputs keep their names.
        prefix: What the wrapper module that was traced put before every name of the checkpoint.

    Returns:
        The number of nodes.
    """
    _drop_prefix(model.graph, prefix)
    taken = {value.name for value in (*model.graph.inputs, *model.graph.outputs)} | set(model.graph.initializers)
    used: collections.Counter[str] = collections.Counter()
    for node in model.graph:
        module = _module_of(node).removeprefix(prefix.rstrip(".")).lstrip(".")
        base = f"{module}/{node.op_type}" if module else node.op_type
        name = base
        while name in taken:
            used[base] += 1
            name = f"{base}_{used[base]}"
        taken.add(name)
        node.name = name
        for index, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{name}:{index}" if index else name
    _name_unnamed_constants(model.graph)
    return len(model.graph)


def _drop_prefix(graph: ir.Graph, prefix: str) -> None:
    for name in list(graph.initializers):
        short = name.removeprefix(prefix)
        if short != name and short not in graph.initializers:
            graph.initializers[name].name = short


def _name_unnamed_constants(graph: ir.Graph) -> None:
    """Names constants that are not in the checkpoint (``val_38``) after the first node that reads them."""
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and "." not in (value.name or "."):
                value.name = f"{node.name}.input_{index}"


def _module_of(node: ir.Node) -> str:
    """Returns the dotted name of the module that a node was traced in, empty if it is not known."""
    recorded = node.metadata_props.get(_SCOPES)
    if recorded is None:
        return ""
    scopes = [str(scope) for scope in ast.literal_eval(recorded)]
    # The last scope is the traced operation itself; shape arithmetic has a scope of torch's own.
    modules = [scope for scope in scopes[:-1] if not scope.startswith("_")]
    return modules[-1] if modules else ""
