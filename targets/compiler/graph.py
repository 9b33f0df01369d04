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

    def insert_before(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Puts ``new`` in front of ``node``."""
        self.graph.node.insert(self._position(node), new)
        self.refresh()

    def add_initializer(self, tensor: onnx.TensorProto) -> None:
        """Adds a constant of another graph."""
        self.graph.initializer.append(tensor)
        self.initializers[tensor.name] = self.graph.initializer[-1]

    def columns_of(self, node: onnx.NodeProto) -> int:
        """Returns the last dimension of what a linear layer makes, or 0 for other nodes."""
        rows = attributes(node).get("N")
        if isinstance(rows, int):
            return rows
        if node.op_type == "Add":  # the bias of a float layer
            return max((self.initializers[name].dims[0] for name in node.input if name in self.initializers), default=0)
        weight = self.initializers.get(node.input[1]) if len(node.input) > 1 else None
        return int(weight.dims[-1]) if weight is not None else 0

    def columns_of_input(self, name: str) -> int:
        """Returns the last dimension of an input of the graph, or 0 for other tensors."""
        shapes = [value.type.tensor_type.shape.dim for value in self.graph.input if value.name == name]
        return int(shapes[0][-1].dim_value) if shapes and shapes[0] else 0

    def set_interface(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        """Replaces the inputs and outputs of the graph."""
        for field, values in ((self.graph.input, inputs), (self.graph.output, outputs)):
            copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in values]
            del field[:]
            field.extend(copies)
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
