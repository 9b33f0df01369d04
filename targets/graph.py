"""A view of an ONNX graph for passes: who makes a tensor, who reads it, and how to replace nodes."""

from __future__ import annotations

import onnx


class GraphView:
    """Indexes of one ``GraphProto``, kept right by the editing methods.

    Attributes:
        graph: The graph that is viewed and edited in place.
        initializers: Initializer by name.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.refresh()

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Returns the node that makes tensor ``name``, or None for inputs and initializers."""
        return self._producers.get(name)

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Returns the node that reads ``name`` if it is the only one and the tensor is no output of the graph."""
        readers = self._consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def replace(self, old: list[onnx.NodeProto], new: onnx.NodeProto) -> None:
        """Puts ``new`` where the last of ``old`` stands and removes all of ``old``."""
        position = max(self._position(node) for node in old)
        self.graph.node.insert(position + 1, new)
        for node in old:
            self.graph.node.remove(node)
        self.refresh()

    def remove_unused(self) -> None:
        """Removes nodes that lead to no output of the graph."""
        needed = set(self._outputs)
        for node in reversed(list(self.graph.node)):
            if needed.isdisjoint(node.output):
                self.graph.node.remove(node)
            else:
                needed.update(node.input)
        self.refresh()

    def refresh(self) -> None:
        """Reads the graph again after it was edited directly."""
        self._outputs = {value.name for value in self.graph.output}
        self._producers = {output: node for node in self.graph.node for output in node.output}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)

    def _position(self, wanted: onnx.NodeProto) -> int:
        outputs = list(wanted.output)
        return next(i for i, node in enumerate(self.graph.node) if list(node.output) == outputs)


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Returns a node's attributes by name, strings decoded."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
