"""ONNX to Relax: every float operator on the path becomes a call of one of our kernels.

The base class is TVM's importer. It looks at the operator's name alone and has no hook for operators of others, so the
methods that consult its table are overridden. Operators that only move or compare integers and shapes
(``_EXACT_OPERATORS``) keep TVM's own lowering: it is exact on every core.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, onnx_input

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.packing import packed_shape, unpack
from edgeq.targets.compiler.converters import CONVERTERS
from edgeq.targets.compiler.converters.kernel_calls import KernelCalls, shape_of
from edgeq.targets.compiler.converters.linear import SEVEN_BITS
from edgeq.targets.compiler.converters.rows import FLOAT_PRODUCT, float_embedding
from edgeq.targets.compiler.graph import attributes
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels.float_matmul import panels
from edgeq.targets.compiler.passes.float_linear import FLOAT_LINEAR
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER
from edgeq.targets.runtime.tensor_parser import FLOAT, PACKED

_EXACT_OPERATORS = frozenset(
    {"Add", "Sub", "Mul", "Cast", "Concat", "Constant", "Equal", "Expand", "Gather", "Identity", "Not", "Reshape"}
    | {"And", "Clip", "Div", "Greater", "GreaterOrEqual", "LessOrEqual", "ReduceSum", "Sqrt"}
    | {"Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Where"}
)
"""Lowered by TVM itself: data movement, integer arithmetic, and single float additions, quotients and roots, which have
only one correctly rounded result (multiplications of rows have a kernel, so that none is fused with an addition)."""
_INTEGERS_ONLY = frozenset({"ReduceSum"})
"""Those of them that round floats in an order of their own."""

_PANEL_INPUT = {FLOAT_LINEAR: 1, PANEL_GATHER: 0}
"""Which input of an operator is a matrix in panels."""


@dataclasses.dataclass(frozen=True)
class WeightTensor:
    """One tensor that the compiled function takes after its inputs.

    Attributes:
        name: Name of the ONNX initializer.
        array: Its values as the kernels read them: packed codes as int32 words, float matrices in panels.
        kind: ``packed``, ``float`` or ``constant``, as in a bundle's manifest.
        bits: Bits of a packed code; None for other tensors.
        zero_point: Code that stands for 0; None for other tensors.
    """

    name: str
    array: np.ndarray
    kind: str = FLOAT
    bits: int | None = None
    zero_point: float | None = None


class EdgeqImporter(ONNXGraphImporter):
    """Turns graphs that ``edgeq.targets.compiler.passes`` has prepared into Relax functions over one set of weights.

    Each function takes the inputs of its graph, then the tensors of ``weights`` in that order (all of them, whichever
    it uses), and returns a tuple.

    Args:
        isa: Instruction set that the kernels are built for.
    """

    def __init__(self, isa: Isa) -> None:
        super().__init__({}, {}, keep_params_in_input=True, sanitize=True)
        self.weights: list[WeightTensor] = []
        self._constants: dict[str, np.ndarray] = {}
        self._calls = KernelCalls(self.bb, isa)

    def import_graphs(self, graphs: dict[str, onnx.GraphProto], opset: int) -> tvm.IRModule:
        """Returns a module with one function for each graph, by its name.

        Raises:
            UnsupportedError: If a node has no kernel.
            FormatError: If a packed weight has not the shape that its attributes say.
        """
        self.opset = opset
        for graph in graphs.values():
            self._check_for_unsupported_ops(graph)
        self._read_initializers(list(graphs.values()))
        for name, graph in graphs.items():
            self._import_function(name, graph)
        return self.bb.get()

    def _import_function(self, name: str, graph: onnx.GraphProto) -> None:
        for table in (self._nodes, self._inputs, self._params):
            table.clear()
        self._parse_graph_initializers(graph)
        self._parse_graph_input(graph)
        parameters = [*self._inputs.values(), *(var for var, _ in self._params.values())]
        with self.bb.function(name, params=parameters):
            with self.bb.dataflow():
                self._construct_nodes(graph)
                outputs = self.bb.emit_output(relax.Tuple([self._nodes[value.name] for value in graph.output]))
            self.bb.emit_func_output(outputs)

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        known = CONVERTERS.keys() | _EXACT_OPERATORS
        unknown = {node.op_type: node for node in graph.node if node.op_type not in known}
        if unknown:
            named = ", ".join(f"{name} (node {n.name or n.output[0]!r})" for name, n in sorted(unknown.items()))
            raise UnsupportedError(
                f"no kernel for {named}; export with the default flavour, and opset (23), "
                "which keeps attention and GELU whole"
            )

    def _read_initializers(self, graphs: list[onnx.GraphProto]) -> None:
        """Float and packed tensors become weights; integers (shapes, positions) and scalars constants."""
        nodes = [node for graph in graphs for node in graph.node]
        tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        in_panels = _name_panels(nodes, tensors)
        packed = {n.input[1]: attributes(n) for n in nodes if n.op_type in ("LowBitLinear", "LowBitEmbedding")}
        used = {name for node in nodes for name in node.input}
        products = _nodes_by_weight(nodes, "LowBitLinear")
        for name, initializer in tensors.items():
            for panel_name, transposed in in_panels.get(name, {}).items():
                matrix = onnx.numpy_helper.to_array(initializer)
                self.weights.append(WeightTensor(panel_name, panels(matrix.T if transposed else matrix)))
            if name not in used or name in in_panels.get(name, {}):
                continue
            array = onnx.numpy_helper.to_array(initializer)
            if array.dtype.kind in "ib" or (array.dtype.kind == "f" and array.ndim == 0):
                self._constants[name] = np.asarray(array, order="C")
                continue
            if name in products:
                _check_codes(products[name][0], array)
                _mark_seven_bits(products[name], array)
            if name in packed:
                words = np.ascontiguousarray(array).view(np.int32).reshape(array.shape[:3])
                bits, zero_point = (str(packed[name][key]) for key in ("bits", "zero_point"))
                self.weights.append(WeightTensor(name, words, PACKED, int(bits), float(zero_point)))
            else:
                self.weights.append(WeightTensor(name, array))

    def _parse_graph_initializers(self, graph: onnx.GraphProto) -> None:
        del graph  # all functions see the same
        for name, array in self._constants.items():
            self._nodes[name] = relax.const(tvm.runtime.tensor(array))
        for weight in self.weights:
            array = weight.array
            var = self._new_var(self._sanitize_name(weight.name), shape=list(array.shape), dtype=str(array.dtype))
            self._nodes[weight.name] = var
            self._params[weight.name] = (var, None)

    def _sanitize_name(self, name: str) -> str:
        return str(self._name_supply.fresh_name("".join(c if c.isalnum() else "_" for c in name)))

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            inputs = onnx_input([self._nodes[name] if name else None for name in node.input])
            attrs = self._parse_attr(node.attribute)
            attrs["tvm_custom"] = {"name": node.name or node.output[0], "num_outputs": len(node.output)}
            result = self._convert_operator(node.op_type, inputs, attrs, self.opset)
            results = list(result) if isinstance(result, relax.Tuple) else [result]
            self._nodes.update(zip(node.output, results, strict=False))

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        if op_name == "Mul" and inputs[0].ty.dtype == "float32" and _has_fixed_columns(inputs):
            op_name = FLOAT_PRODUCT
        if op_name in CONVERTERS:
            values = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
            values["name"] = attrs["tvm_custom"]["name"]
            values.setdefault("outputs", attrs["tvm_custom"]["num_outputs"])
            return CONVERTERS[op_name](self._calls, list(inputs), values)
        if op_name == "Gather" and attrs.get("axis", 0) == 0 and self._is_table(inputs[0]):
            return float_embedding(self._calls, *inputs)
        if op_name == "Gather" and attrs.get("axis", 0) == 0 and isinstance(inputs[0], tvm.ir.GenericConst):
            # Integers by places that are not negative; TVM's own conversion would look at shapes while it runs.
            return self.bb.emit(relax.op.take(*inputs, axis=0, mode="clip"))
        if op_name == "Gather" and isinstance(inputs[1], tvm.ir.GenericConst):
            return self.bb.emit(_take_constant(inputs[0], inputs[1].value.numpy(), attrs))
        if op_name in _INTEGERS_ONLY and not str(inputs[0].ty.dtype).startswith("int"):
            raise UnsupportedError(f"no kernel for {op_name} of floats (node {attrs['tvm_custom']['name']!r})")
        result = super()._convert_operator(op_name, inputs, attrs, opset)
        # Bound to a variable: an expression with several readers would be computed once for each.
        return self.bb.emit(result) if isinstance(result, relax.Call) else result

    def _is_table(self, value: Any) -> bool:
        return any(value.same_as(var) for var, _ in self._params.values()) and len(shape_of(value)) == 2


def _has_fixed_columns(inputs: list[Any]) -> bool:
    """Whether a multiplication is one of rows whose length is known: states of tokens, but not masks."""
    return any(len(shape_of(value)) >= 2 and isinstance(shape_of(value)[-1], tirx.IntImm) for value in inputs)


def _take_constant(data: Any, indices: np.ndarray, attrs: dict[str, Any]) -> Any:
    """Elements at places that are known: TVM's own conversion computes them anew in every call.

    Raises:
        UnsupportedError: If a place counts from an end that only a call tells.
    """
    shape = shape_of(data)
    axis = int(attrs.get("axis", 0)) % len(shape)
    if indices.size and indices.min() < 0:
        size = shape[axis]
        if not isinstance(size, tvm.tirx.IntImm):
            raise UnsupportedError(
                f"{attrs['tvm_custom']['name']}: an index of Gather counts from the end of an axis of any size; "
                "export the model with edgeq export"
            )
        indices = np.where(indices < 0, indices + int(size.value), indices)
    return relax.op.take(data, relax.const(indices, "int64"), axis=axis, mode="fast")


def _name_panels(
    nodes: list[onnx.NodeProto], tensors: dict[str, onnx.TensorProto]
) -> dict[str, dict[str, bool]]:
    """Renames the matrices of float layers that others read as well, since panels are another tensor than a table.

    Returns:
        For each initializer that is needed in panels, their names and whether it is transposed first.
    """
    uses: dict[str, set[int | None]] = {}
    for node in nodes:
        for position, name in enumerate(node.input):
            uses.setdefault(name, set()).add(_orientation(node) if position == _PANEL_INPUT.get(node.op_type) else None)
    found: dict[str, dict[str, bool]] = {}
    for node in [n for n in nodes if n.op_type in _PANEL_INPUT]:
        position, transposed = _PANEL_INPUT[node.op_type], _orientation(node)
        source = node.input[position]
        node.input[position] = source if uses[source] == {transposed} else f"{source}.panels{transposed}"
        found.setdefault(source, {})[node.input[position]] = bool(transposed)
        if node.op_type == FLOAT_LINEAR:
            outputs = tensors[source].dims[0 if transposed else 1]
            node.attribute.append(onnx.helper.make_attribute("outputs", outputs))
    return found


def _orientation(node: onnx.NodeProto) -> int:
    """1 where the matrix in panels is stored ``[N, K]``; a table always is."""
    return int(str(attributes(node).get("transposed", 1)))


def _nodes_by_weight(nodes: list[onnx.NodeProto], op_type: str) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        if node.op_type == op_type:
            found.setdefault(node.input[1], []).append(node)
    return found


def _mark_seven_bits(nodes: list[onnx.NodeProto], packed: np.ndarray) -> None:
    """Tells the readers of an 8-bit matrix that all of its codes are below 128, which some kernels use.

    The code of a bundle may depend on the values of its weights, since the manifest holds the digest of both.
    """
    if attributes(nodes[0])["bits"] == 8 and packed.dtype == np.uint8 and packed.size and packed.max() < 128:
        for node in nodes:
            node.attribute.append(onnx.helper.make_attribute(SEVEN_BITS, 1))


def _check_codes(node: onnx.NodeProto, packed: np.ndarray) -> None:
    """Refuses the unused code 0 in an 8-bit matrix: byte products of AVX2 are exact for codes from 1 on only.

    Raises:
        FormatError: If a row holds it (padding may).
    """
    values = attributes(node)
    rows, columns = (int(str(values[name])) for name in ("N", "K"))
    if values["bits"] != 8 or packed.shape != packed_shape(rows, columns, 8):
        return  # a wrong shape is reported with the node's conversion
    if not unpack(packed, 8, rows=rows, columns=columns).all():
        raise FormatError(
            f"{node.name or node.output[0]}: an 8-bit matrix uses the codes 1 to 255, found 0; compress the model again"
        )
