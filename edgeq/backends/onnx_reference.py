"""The ONNX project's own evaluator in numpy, running the bodies of the low-bit operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from edgeq.arrays import Arrays

_NODES_OF_A_PART = 24


class GatherElements(OpRun):
    """In the place of the evaluator's own, which fails on negative axes and where it picks from more than 64 values."""

    op_domain = ""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
        return (np.take_along_axis(data, indices, axis),)


class OnnxReference:
    """A model in the ONNX reference evaluator.

    The evaluator keeps all values of a graph until its end, so that a graph is evaluated in parts, and values are
    forgotten once no later part reads them.

    Args:
        model: The model, with its weights.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        parts = _parts(_without_overloads(model))
        self._outputs = [output.name for output in model.graph.output]
        self._evaluators = [ReferenceEvaluator(part, new_ops=[GatherElements]) for part in parts]
        last = {value.name: number for number, part in enumerate(parts) for value in part.graph.input}
        self._forgotten: list[list[str]] = [
            [name for name, number in last.items() if number == at and name not in self._outputs]
            for at in range(len(parts))
        ]

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        # Release 1.20 fails on indices that are not contiguous.
        values = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        for evaluator, forgotten in zip(self._evaluators, self._forgotten, strict=True):
            given = {name: values[name] for name in evaluator.input_names}
            values |= zip(evaluator.output_names, evaluator.run(None, given), strict=True)
            for name in forgotten:
                del values[name]
        return {name: values[name] for name in self._outputs}


def _parts(model: onnx.ModelProto) -> list[onnx.ModelProto]:
    """Cuts a model into models of some nodes each, in the order of its nodes.

    Inputs of a part are what it reads of earlier ones; its outputs are what later ones read, and those of the model.
    """
    nodes, weights = list(model.graph.node), {tensor.name: tensor for tensor in model.graph.initializer}
    if any(attribute.type == onnx.AttributeProto.GRAPH for node in nodes for attribute in node.attribute):
        return [model]  # a graph inside a node reads values that the node does not name
    parts = []
    wanted = {output.name for output in model.graph.output}
    for end in range(len(nodes), 0, -_NODES_OF_A_PART):
        some = nodes[max(0, end - _NODES_OF_A_PART) : end]
        made = {name for node in some for name in node.output if name}
        read = {name for node in some for name in node.input if name}
        inputs = sorted(read - made - weights.keys())
        graph = helper.make_graph(
            some,
            "part",
            [helper.make_empty_tensor_value_info(name) for name in inputs],
            [helper.make_empty_tensor_value_info(name) for name in sorted(wanted & made)],
            [weights[name] for name in sorted(read & weights.keys())],
        )
        parts.append(
            helper.make_model(
                graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
            )
        )
        wanted |= set(inputs)
    return parts[::-1]


def _without_overloads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives overloaded functions names of their own: the evaluator would run the last one for all nodes."""
    if not any(item.overload for item in (*model.functions, *model.graph.node)):
        return model  # a copy would hold the weights once more
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for item in (*plain.functions, *plain.graph.node):
        if item.overload:
            name = "name" if isinstance(item, onnx.FunctionProto) else "op_type"
            setattr(item, name, f"{getattr(item, name)}_{item.overload}")
            item.overload = ""
    return plain
