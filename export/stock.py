"""The stock flavour: operators of ONNX Runtime itself instead of edgeq's, for those who may not load a library.

``LowBitLinear`` becomes ``com.microsoft::MatMulNBits`` (and an ``Add`` of the bias), ``LowBitEmbedding`` becomes
``com.microsoft::GatherBlockQuantized``. The weights are the same numbers, but one thing differs: activations are
quantized in blocks of up to 128 columns instead of rows, so results agree in what a task measures and not in bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeq.errors import UnsupportedError
from edgeq.export.external_data import VIEW
from edgeq.export.ops.operator import NodeFormat
from edgeq.export.ops.registry import is_low_bit, node_format, operator_for, reads_matrix
from edgeq.formats.low_bit import OP_DOMAIN, PackedMatrix
from edgeq.formats.packing import unpack

DOMAIN = "com.microsoft"
BLOCKS = (128, 64, 32)
"""Columns that share a scale, fastest first: with 32, two-bit matmuls take twice as long; 16 and 256 have no fast
kernel. Every row has one scale, which is repeated for its blocks."""

_INT8_ACTIVATIONS, _FLOAT_ACTIVATIONS = 4, 1  # values of the attribute accuracy_level


@dataclasses.dataclass(frozen=True)
class BlockCodes:
    """A matrix as ONNX Runtime's operators store it.

    Attributes:
        bits: 2, 4 or 8.
        codes: uint8 ``[N, K]``.
        scale: float32 ``[N]`` or ``[1]``.
        zero_point: Code that stands for 0, or None for ``2**(bits - 1)``, which need not be stored.
    """

    bits: int
    codes: np.ndarray
    scale: np.ndarray
    zero_point: int | None

    @property
    def block(self) -> int:
        """Columns of a block: the largest that wastes at most a sixteenth more than the thriftiest."""
        padded = {block: -(-self.codes.shape[1] // block) * block for block in BLOCKS}
        least = min(padded.values())
        return next(block for block in BLOCKS if padded[block] <= least + least // 16)

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return -(-self.codes.shape[1] // self.block)

    def packed_codes(self) -> np.ndarray:
        """Codes of all blocks, lowest bits first: uint8 ``[N, blocks * block * bits / 8]``."""
        padded = np.zeros((len(self.codes), self.blocks * self.block), np.uint8)
        padded[:, : self.codes.shape[1]] = self.codes
        return _packed(padded, self.bits)

    def block_scales(self) -> np.ndarray:
        """The scale of every block: float32 ``[N, blocks]``."""
        per_row = np.broadcast_to(self.scale, (len(self.codes),)).astype(np.float32)
        return np.repeat(per_row[:, None], self.blocks, axis=1)

    def block_zero_points(self) -> np.ndarray | None:
        """The zero point of every block, if it must be stored: uint8 ``[N, blocks * bits / 8]``, rounded up."""
        if self.zero_point is None:
            return None
        fields = 8 // self.bits
        points = np.full((len(self.codes), -(-self.blocks // fields) * fields), self.zero_point, np.uint8)
        return _packed(points, self.bits)


def _packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Joins neighbouring values of a row into bytes, the first in the lowest bits."""
    fields = 8 // bits
    spread = values.reshape(len(values), -1, fields)
    out = np.zeros(spread.shape[:2], np.uint8)
    for field in range(fields):
        out |= spread[..., field] << np.uint8(bits * field)
    return out


def block_codes(matrix: PackedMatrix, packed: np.ndarray, scale: np.ndarray) -> BlockCodes:
    """Finds codes of 2, 4 or 8 bits for a matrix; the weights stay the same numbers, bit for bit.

    A half-integer zero point is doubled with the codes, and the scale halved: binary takes 2 bits, balanced 2-bit
    grids take 4. Codes are then shifted so that the default zero point serves, where there is room.
    """
    codes = unpack(packed, matrix.bits, rows=matrix.rows, columns=matrix.columns).astype(np.int64)
    bits, zero_point = matrix.bits, matrix.zero_point
    if zero_point != int(zero_point):
        codes, bits, scale, zero_point = 2 * codes, 2 * bits, scale * np.float32(0.5), 2 * zero_point
    default = 2 ** (bits - 1)
    shifted = codes - int(zero_point) + default
    if shifted.min() >= 0 and shifted.max() < 2**bits:
        return BlockCodes(bits, shifted.astype(np.uint8), scale, None)
    return BlockCodes(bits, codes.astype(np.uint8), scale, int(zero_point))


class _Converter:
    """Replaces nodes one by one, and makes each tensor that they need once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.made: dict[str, onnx.TensorProto] = {}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._matrices: dict[str, BlockCodes] = {}

    def described(self, node: onnx.NodeProto) -> NodeFormat:
        """The matrix and the activation of a node."""
        operator_for(node)
        return node_format(node, self._constants)

    def matrix(self, node: onnx.NodeProto) -> BlockCodes:
        """The weight of a node, decoded once however many nodes read it."""
        name = node.input[1]
        if name not in self._matrices:
            packed, scale = (numpy_helper.to_array(self._constants[node.input[index]]) for index in (1, 2))
            self._matrices[name] = block_codes(self.described(node).matrix, packed, scale)
        return self._matrices[name]

    def linear(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        """The matmul, and the addition of the bias if there is one."""
        format_, stored = self.described(node), self.matrix(node)
        blocks = stored.packed_codes().reshape(format_.matrix.rows, stored.blocks, -1)
        inputs = [node.input[0], *self._operands(node, stored, blocks, "product", flat=True)]
        in_floats = format_.activation == "none" and stored.bits == 4
        bias = self._constants[node.input[3]]
        has_bias = list(bias.dims) != [1] or bool(numpy_helper.to_array(bias).any())
        out = f"{node.output[0]}{VIEW}product" if has_bias else node.output[0]
        name = node.name.removesuffix(node.op_type)
        yield helper.make_node(
            "MatMulNBits",
            inputs,
            [out],
            name=f"{name}MatMulNBits",
            domain=DOMAIN,
            K=format_.matrix.columns,
            N=format_.matrix.rows,
            bits=stored.bits,
            block_size=stored.block,
            accuracy_level=_FLOAT_ACTIVATIONS if in_floats else _INT8_ACTIVATIONS,
        )
        if has_bias:
            yield helper.make_node("Add", [out, node.input[3]], [node.output[0]], name=f"{name}Add")

    def embedding(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        """The gathering of rows, and the removal of the padding of the last block if there is any."""
        format_, stored = self.described(node), self.matrix(node)
        table, *others = self._operands(node, stored, stored.packed_codes(), "rows", flat=False)
        columns, name = format_.matrix.columns, node.name.removesuffix(node.op_type)
        is_padded = stored.blocks * stored.block > columns
        out = f"{node.output[0]}{VIEW}padded" if is_padded else node.output[0]
        yield helper.make_node(
            "GatherBlockQuantized",
            [table, node.input[0], *others],
            [out],
            name=f"{name}GatherBlockQuantized",
            domain=DOMAIN,
            bits=stored.bits,
            block_size=stored.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if is_padded:
            ends = [self._constant(f"{node.output[0]}{VIEW}{end}", np.array([value], np.int64))
                    for end, value in (("start", 0), ("end", columns), ("axis", -1))]  # fmt: skip
            yield helper.make_node("Slice", [out, *ends], [node.output[0]], name=f"{name}Slice")

    def _operands(
        self, node: onnx.NodeProto, stored: BlockCodes, codes: np.ndarray, view: str, *, flat: bool
    ) -> list[str]:
        """Names of codes, scales and zero points; matmuls take the latter two without dimensions."""
        weight, scale = node.input[1], node.input[2]
        parts = [(weight, codes), (f"{scale}.of_blocks", stored.block_scales())]
        points = stored.block_zero_points()
        if points is not None:
            parts.append((f"{weight}.zero_points", points))
        shaped = [parts[0], *((name, array.reshape(-1) if flat else array) for name, array in parts[1:])]
        return [self._constant(f"{name}{VIEW}{view}", array) for name, array in shaped]

    def _constant(self, name: str, array: np.ndarray) -> str:
        if name not in self.made:
            self.made[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name


def to_stock_operators(model: onnx.ModelProto) -> list[str]:
    """Replaces every node of domain ``ai.edgeq``.

    Args:
        model: Changed in place; weights are in it, not beside it.

    Returns:
        What the user should know, one sentence each.

    Raises:
        FormatError: If a node is malformed.
        UnsupportedError: If a node of domain ``ai.edgeq`` is not one of ours, or has no counterpart.
    """
    graph = model.graph
    alone = next((node for node in graph.node if is_low_bit(node) and not reads_matrix(node)), None)
    if alone is not None:
        raise UnsupportedError(
            f"{alone.name}: ONNX Runtime has no operator that computes {alone.op_type}; export with the default "
            'flavour, or compress with attention = "float"'
        )
    converter = _Converter(graph)
    products = [converter.described(node) for node in graph.node if is_low_bit(node) and node.op_type == "LowBitLinear"]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if not is_low_bit(node):
            nodes.append(node)
        else:
            nodes += converter.linear(node) if node.op_type == "LowBitLinear" else converter.embedding(node)
    nodes = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [_copy(tensor) for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *converter.made.values()])
    domains = [_copy(entry) for entry in model.opset_import if entry.domain not in (OP_DOMAIN, DOMAIN)]
    del model.opset_import[:]
    model.opset_import.extend([*domains, *([helper.make_opsetid(DOMAIN, 1)] if converter.made else [])])
    return _remarks(products)


def _copy(message: Any) -> Any:
    """A message of its own: what is deleted from a graph must not be put back."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _remarks(products: list[NodeFormat]) -> list[str]:
    remarks = []
    if any(format_.activation == "none" and not _has_float_kernel(format_.matrix) for format_ in products):
        remarks.append(
            "ONNX Runtime multiplies 2- and 8-bit weights with float activations only slowly: "
            "here activations are rounded to int8 in blocks"
        )
    if any(format_.matrix.zero_point == 1.5 for format_ in products):
        remarks.append("ONNX Runtime has no balanced 2-bit grid: those weights are stored in 4 bits")
    return remarks


def _has_float_kernel(matrix: PackedMatrix) -> bool:
    return matrix.bits == 4 or matrix.zero_point == 1.5
