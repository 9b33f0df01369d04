"""ONNX to Relax: every float operator on the path becomes a call of one of our kernels.

The base class is TVM's importer. It looks at the operator's name alone and has no hook for operators of
others, so the two methods that consult its table are overridden. Operators that only move or compare
integers and shapes (``_EXACT_OPERATORS``) keep TVM's own lowering: it is exact on every core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, onnx_input

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats import PackedMatrix
from edgeq.targets.isa import Isa
from edgeq.targets.kernels.attention import attention
from edgeq.targets.kernels.cached_attention import CachedHead, append_to_cache, cached_attention
from edgeq.targets.kernels.elementwise import elementwise
from edgeq.targets.kernels.float_matmul import float_matmul, weight_only_matmul
from edgeq.targets.kernels.gather_rows import gather_rows
from edgeq.targets.kernels.layer_norm import layer_norm
from edgeq.targets.kernels.low_bit_embedding import low_bit_embedding
from edgeq.targets.kernels.low_bit_matmul import check_accumulator, low_bit_matmul
from edgeq.targets.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.kernels.sequence import last_token, token_positions
from edgeq.targets.passes.cache import CACHED_ATTENTION, LAST_TOKEN, TOKEN_POSITIONS
from edgeq.targets.passes.residual import RESIDUAL_LAYER_NORM

_EXACT_OPERATORS = frozenset(
    {"Add", "Sub", "Mul", "Cast", "Concat", "Constant", "Equal", "Expand", "Gather", "Identity", "Not", "Reshape"}
    | {"Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Where"}
)
"""Lowered by TVM itself: data movement, integer arithmetic, and single float additions or products, which have only
one correctly rounded result."""


@dataclasses.dataclass(frozen=True)
class WeightTensor:
    """One tensor that the compiled function takes after its inputs.

    Attributes:
        name: Name of the ONNX initializer.
        array: Its values as the kernels read them: packed codes as int32 words, float matrices as ``[K, N]``.
    """

    name: str
    array: np.ndarray


class EdgeqImporter(ONNXGraphImporter):
    """Turns a graph that ``edgeq.targets.passes`` has prepared into a Relax function ``main``.

    ``main`` takes the inputs of the graph, then the tensors of ``weights`` in that order, and returns a tuple.

    Args:
        isa: Instruction set that the kernels are built for.
    """

    def __init__(self, isa: Isa) -> None:
        super().__init__({}, {}, keep_params_in_input=True, sanitize=True)
        self.weights: list[WeightTensor] = []
        self._isa = isa
        self._kernels: dict[tuple[Any, ...], Any] = {}
        self._quantized: dict[tuple[Any, ...], list[Any]] = {}
        self._converters: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
            "Attention": self._attention,
            CACHED_ATTENTION: self._cached_attention,
            LAST_TOKEN: self._last_token,
            TOKEN_POSITIONS: self._token_positions,
            "Erf": self._erf,
            "FloatLinear": self._float_linear,
            "Gather": self._gather,
            "Gelu": self._gelu,
            "LayerNormalization": self._layer_norm,
            "LowBitEmbedding": self._low_bit_embedding,
            "LowBitLinear": self._low_bit_linear,
            RESIDUAL_LAYER_NORM: self._residual_layer_norm,
            "Tanh": self._tanh,
        }

    def import_graph(self, graph: onnx.GraphProto, opset: int) -> tvm.IRModule:
        """Returns a module with the function ``main``.

        Raises:
            UnsupportedError: If a node has no kernel.
            FormatError: If a packed weight has not the shape that its attributes say.
        """
        self.opset = opset
        self._check_for_unsupported_ops(graph)
        self._parse_graph_initializers(graph)
        self._parse_graph_input(graph)
        parameters = [*self._inputs.values(), *(var for var, _ in self._params.values())]
        with self.bb.function("main", params=parameters):
            with self.bb.dataflow():
                self._construct_nodes(graph)
                outputs = self.bb.emit_output(relax.Tuple([self._nodes[value.name] for value in graph.output]))
            self.bb.emit_func_output(outputs)
        return self.bb.get()

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        unknown = {n.op_type: n for n in graph.node if n.op_type not in self._converters}
        unknown = {name: node for name, node in unknown.items() if name not in _EXACT_OPERATORS}
        if unknown:
            named = ", ".join(f"{name} (node {n.name or n.output[0]!r})" for name, n in sorted(unknown.items()))
            raise UnsupportedError(
                f"no kernel for {named}; export with the default opset (23), which keeps attention and GELU whole"
            )

    def _parse_graph_initializers(self, graph: onnx.GraphProto) -> None:
        """Float and packed tensors become parameters of ``main``; integers (shapes, positions) constants."""
        transposed = {n.input[1] for n in graph.node if n.op_type == "FloatLinear" and n.attribute[0].i == 1}
        packed = {n.input[1] for n in graph.node if n.op_type in ("LowBitLinear", "LowBitEmbedding")}
        used = {name for node in graph.node for name in node.input}
        for tensor in graph.initializer:
            if tensor.name not in used:
                continue
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind in "ib" or (array.dtype.kind == "f" and array.ndim == 0):
                self._nodes[tensor.name] = relax.const(tvm.runtime.tensor(np.asarray(array, order="C")))
                continue
            if tensor.name in packed:
                array = np.ascontiguousarray(array).view(np.int32).reshape(array.shape[:3])
            elif tensor.name in transposed:
                array = np.ascontiguousarray(array.T)
            self._add_weight(tensor.name, array)

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            inputs = onnx_input([self._nodes[name] if name else None for name in node.input])
            attrs = self._parse_attr(node.attribute)
            attrs["tvm_custom"] = {"name": node.name or node.output[0], "num_outputs": len(node.output)}
            result = self._convert_operator(node.op_type, inputs, attrs, self.opset)
            results = list(result) if isinstance(result, relax.Tuple) else [result]
            self._nodes.update(zip(node.output, results, strict=False))

    def _add_weight(self, name: str, array: np.ndarray) -> Any:
        value = tvm.runtime.tensor(array)
        var = self._new_var(self._sanitize_name(name), shape=list(array.shape), dtype=str(array.dtype))
        self._nodes[name] = var
        self._params[name] = (var, value)
        self.weights.append(WeightTensor(name, array))
        return var

    def _sanitize_name(self, name: str) -> str:
        return str(self._name_supply.fresh_name("".join(c if c.isalnum() else "_" for c in name)))

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        values = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
        if op_name in self._converters:
            result = self._converters[op_name](list(inputs), values)
            if result is not None:
                return self.bb.normalize(result)
        result = super()._convert_operator(op_name, inputs, attrs, opset)
        # Bound to a variable: an expression with several readers would be computed once for each.
        return self.bb.emit(result) if isinstance(result, relax.Call) else result

    # ----------------------------------------------------------------- calls of kernels

    def _call(self, key: tuple[Any, ...], build: Callable[[], Any], inputs: list[Any], outputs: Any) -> Any:
        """Emits a call of the kernel that ``build()`` makes."""
        return self.bb.emit(relax.call_tir(self._kernel(key, build), inputs, outputs))

    def _kernel(self, key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        """Returns the kernel that ``build()`` makes, which is made once for each ``key``."""
        if key not in self._kernels:
            self._kernels[key] = self.bb.add_func(build().without_attr("global_symbol"), _kernel_name(key))
        return self._kernels[key]

    def _low_bit_linear(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        x, weight, scale, bias = inputs[:4]
        matrix = _packed_matrix(attrs, weight, scale)
        lead = _shape(x)[:-1]
        activation, epilogue = attrs["activation"], attrs.get("epilogue", "none")
        has_bias = int(_shape(bias)[0]) == matrix.rows and matrix.rows > 1
        out = relax.TensorType([*lead, matrix.rows], "float32")
        options = {"rank": len(lead), "has_bias": has_bias, "epilogue": epilogue}
        key = (matrix, *options.values())
        if activation == "none":
            return self._call(
                ("weight_only_matmul", *key),
                lambda: weight_only_matmul(matrix, **options),
                [x, weight, scale, bias],
                out,
            )
        check_accumulator(matrix, _layer(attrs))
        quantized = self._quantize(x, inputs[4] if activation == "static" else None)
        return self._call(
            ("low_bit_matmul", *key),
            lambda: low_bit_matmul(self._isa, matrix, **options),
            [*quantized, weight, scale, bias],
            out,
        )

    def _quantize(self, x: Any, static_scale: Any) -> list[Any]:
        """Quantizes once, however many layers read ``x``."""
        known = (x, static_scale)
        if known not in self._quantized:
            *lead, columns = _shape(x)
            key = ("quantize_rows", int(columns), len(lead), static_scale is not None)
            outputs = [
                relax.TensorType([*lead, padded_columns(int(columns)) // 4], "int32"),
                relax.TensorType(lead, "float32"),
                relax.TensorType(lead, "int32"),
            ]
            call = self._call(
                key,
                lambda: quantize_rows(int(columns), rank=len(lead), static=static_scale is not None),
                [x] if static_scale is None else [x, static_scale],
                outputs,
            )
            self._quantized[known] = [self.bb.emit(relax.TupleGetItem(call, i)) for i in range(3)]
        return self._quantized[known]

    def _low_bit_embedding(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        ids, table, scale = inputs
        matrix = _packed_matrix(attrs, table, scale)
        lead = _shape(ids)
        return self._call(
            ("low_bit_embedding", matrix, len(lead)),
            lambda: low_bit_embedding(matrix, rank=len(lead)),
            [ids, table, scale],
            relax.TensorType([*lead, matrix.columns], "float32"),
        )

    def _gather(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        """Rows of a float table; other gathers (shapes, one position of a sequence) stay TVM's."""
        table, ids = inputs
        is_table = any(table.same_as(var) for var, _ in self._params.values()) and len(_shape(table)) == 2
        if not is_table or attrs.get("axis", 0) != 0:
            return None
        rows, columns = (int(d) for d in _shape(table))
        lead = _shape(ids)
        return self._call(
            ("gather_rows", rows, columns, len(lead)),
            lambda: gather_rows(rows, columns, rank=len(lead)),
            [table, ids],
            relax.TensorType([*lead, columns], "float32"),
        )

    def _layer_norm(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        return self._normalise(inputs, attrs, residual=False)

    def _residual_layer_norm(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        return self._normalise(inputs, attrs, residual=True)

    def _normalise(self, inputs: list[Any], attrs: dict[str, Any], *, residual: bool) -> Any:
        x = inputs[0]
        gamma, beta = [*inputs, None][1 + residual : 3 + residual]
        *lead, columns = _shape(x)
        if attrs.get("axis", -1) not in (-1, len(lead)):
            raise UnsupportedError(f"layer normalisation over axis {attrs['axis']} has no kernel, only over the last")
        if beta is None:
            beta = relax.const(np.zeros(int(columns), np.float32))
        epsilon = float(attrs.get("epsilon", 1e-5))
        return self._call(
            ("layer_norm", int(columns), len(lead), epsilon, residual),
            lambda: layer_norm(int(columns), rank=len(lead), epsilon=epsilon, residual=residual),
            [*inputs[: 1 + residual], gamma, beta],
            relax.TensorType([*lead, columns], "float32"),
        )

    def _attention(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        q, k, v, mask = [*inputs, None][:4]
        heads = int(attrs.get("q_num_heads", 0))
        unusual = [n for n in ("is_causal", "softcap", "qk_matmul_output_mode") if attrs.get(n, 0) != 0]
        if len(_shape(q)) != 3 or heads != int(attrs.get("kv_num_heads", 0)) or len(inputs) > 4 or unusual:
            raise UnsupportedError(
                "this form of Attention has no kernel: expected q, k, v of shape [batch, sequence, width] with equal "
                f"numbers of heads and no cache, found rank {len(_shape(q))}, {heads} and {attrs.get('kv_num_heads')} "
                f"heads{', ' + ', '.join(unusual) if unusual else ''}"
            )
        head_size = int(_shape(q)[-1]) // heads
        scale = float(attrs.get("scale", head_size**-0.5))
        if mask is not None and (len(_shape(mask)) != 4 or not all(_is_one(d) for d in _shape(mask)[1:3])):
            raise UnsupportedError(f"attention mask of shape {_shape(mask)} has no kernel, only [batch, 1, 1, keys]")
        return self._call(
            ("attention", heads, head_size, scale, mask is not None),
            lambda: attention(self._isa, heads, head_size, scale=scale, masked=mask is not None),
            [q, k, v] if mask is None else [q, k, v, mask],
            relax.TensorType(_shape(q), "float32"),
        )

    def _cached_attention(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        """Appends the new keys and values to the caches, in place, and attends to what is then there."""
        qkv, past, new, keys, values = inputs
        head = CachedHead(
            heads=int(attrs["heads"]),
            head_size=int(attrs["head_size"]),
            scale=float(attrs["scale"]),
            dtype=str(keys.ty.dtype),
        )
        key = (head.heads, head.head_size, head.scale, head.dtype)
        append = self._kernel(("append_to_cache", *key), lambda: append_to_cache(head))
        updated = self.bb.emit(
            relax.op.call_tir_inplace(append, [qkv, past, new, keys, values], [3, 4], [keys.ty, values.ty])
        )
        caches = [self.bb.emit(relax.TupleGetItem(updated, i)) for i in range(2)]
        return self._call(
            ("cached_attention", *key),
            lambda: cached_attention(head),
            [qkv, past, new, *caches],
            relax.TensorType([*_shape(qkv)[:-1], head.width], "float32"),
        )

    def _token_positions(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        return self._call(("token_positions",), token_positions, inputs, relax.TensorType(_shape(inputs[0]), "int64"))

    def _last_token(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        batch, _, columns = _shape(inputs[0])
        return self._call(
            ("last_token", int(columns)),
            lambda: last_token(int(columns)),
            inputs,
            relax.TensorType([batch, columns], "float32"),
        )

    def _gelu(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        return self._elementwise("GeluTanh" if attrs.get("approximate", "none") == "tanh" else "Gelu", inputs)

    def _erf(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        return self._elementwise("Erf", inputs)

    def _tanh(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        return self._elementwise("Tanh", inputs)

    def _elementwise(self, name: str, inputs: list[Any]) -> Any:
        *lead, columns = _shape(inputs[0])
        return self._call(
            (name.lower(), int(columns), len(lead)),
            lambda: elementwise(name, int(columns), rank=len(lead)),
            inputs,
            relax.TensorType([*lead, columns], "float32"),
        )

    def _float_linear(self, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        del attrs
        x, weight = inputs[:2]
        k, n = (int(d) for d in _shape(weight))
        lead = _shape(x)[:-1]
        has_bias = len(inputs) > 2
        bias = inputs[2] if has_bias else relax.const(np.zeros(1, np.float32))
        return self._call(
            ("float_matmul", k, n, len(lead), has_bias),
            lambda: float_matmul(k, n, rank=len(lead), has_bias=has_bias),
            [x, weight, bias],
            relax.TensorType([*lead, n], "float32"),
        )


def _kernel_name(key: tuple[Any, ...]) -> str:
    """Name of a kernel in profiles: operator, then rows x columns and bits of its weight, or its sizes."""
    operator, *details = key
    parts = [str(operator)]
    for detail in details:
        if isinstance(detail, PackedMatrix):
            parts.append(f"{detail.rows}x{detail.columns}_w{detail.bits}")
        elif isinstance(detail, int) and not isinstance(detail, bool) and detail > 3:
            parts.append(str(detail))
        elif isinstance(detail, str) and detail != "none":
            parts.append(detail)
    return "_".join(parts)


def _shape(x: Any) -> list[Any]:
    """Dimensions of a Relax tensor: integers and symbolic expressions."""
    return list(x.ty.shape)


def _layer(attrs: dict[str, Any]) -> str:
    """Name of the node that is being converted."""
    return str(attrs["tvm_custom"]["name"])


def _is_one(dimension: Any) -> bool:
    return isinstance(dimension, tirx.IntImm) and int(dimension) == 1


def _packed_matrix(attrs: dict[str, Any], weight: Any, scale: Any) -> PackedMatrix:
    matrix = PackedMatrix(
        rows=int(attrs["N"]),
        columns=int(attrs["K"]),
        bits=int(attrs["bits"]),
        zero_point=float(attrs["zero_point"]),
        scales=int(_shape(scale)[0]),
    )
    found, expected = [int(d) for d in _shape(weight)], list(matrix.packed_shape[:3])
    if found != expected:
        raise FormatError(
            f"{_layer(attrs)}: expected a packed weight of {expected} blocks for {matrix.rows} x {matrix.columns} "
            f"codes of {matrix.bits} bits, found {found}"
        )
    return matrix
