"""Products of activations, and operators that make one vector of a text's tokens: sums, maxima and counts."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir.expr import Constant

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.converters.kernel_calls import Converter, KernelCalls, shape_of, tensor
from edgeq.targets.compiler.kernels import pooling
from edgeq.targets.compiler.kernels.head_matmul import head_matmul


def product(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``MatMul``: each head with a matrix of its own, or weighted rows; matmuls with a constant are linear layers."""
    shapes = [shape_of(value) for value in inputs]
    if [len(shape) for shape in shapes] == [4, 4] and _is(shapes[1][0], 1) and all(map(_is_known, shapes[1])):
        return _head_matmul(calls, inputs)
    if [len(shape) for shape in shapes] == [3, 3] and _is(shapes[0][1], 1) and _is_known(shapes[1][2]):
        return _weighted_rows(calls, inputs)
    raise UnsupportedError(
        f"{attrs['name']}: a matmul of tensors of shape {shapes[0]} and {shapes[1]} has no kernel, only with a "
        "constant matrix, of heads with a matrix of each head, or of one row of weights and the states of a text"
    )


def _head_matmul(calls: KernelCalls, inputs: list[Any]) -> Any:
    """``[B, H, S, D]`` and ``[1, H, D, R]``, whose sizes are known."""
    batch, _, rows, _ = shape_of(inputs[0])
    heads, head_size, columns = (int(size) for size in shape_of(inputs[1])[1:])
    return calls.isa_call(
        ("head_matmul", heads, head_size, columns),
        lambda isa: head_matmul(isa, heads, head_size, columns),
        inputs,
        tensor([batch, heads, rows, columns]),
    )


def _weighted_rows(calls: KernelCalls, inputs: list[Any]) -> Any:
    """``[B, 1, S]`` and ``[B, S, K]``."""
    weights, x = inputs
    shapes = shape_of(weights), shape_of(x)
    batch, columns = shapes[1][0], int(shapes[1][2])
    return calls.call(
        ("weighted_rows", columns), lambda: pooling.weighted_rows(columns), [weights, x], tensor([batch, 1, columns])
    )


def largest_rows(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``ReduceMax`` over the tokens of ``[B, S, K]``."""
    shape = shape_of(inputs[0])
    if len(shape) != 3 or _axes(inputs) != [1] or attrs.get("keepdims", 1) or not _is_known(shape[2]):
        raise UnsupportedError(f"{attrs['name']}: a maximum has a kernel over the tokens of a text only")
    columns = int(shape[2])
    return calls.call(
        ("largest_rows", columns), lambda: pooling.largest_rows(columns), inputs[:1], tensor([shape[0], columns])
    )


def running_sum(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``CumSum`` of integers along the tokens."""
    shape = shape_of(inputs[0])
    plain = not attrs.get("reverse", 0) and not attrs.get("exclusive", 0)
    if len(shape) != 2 or _axes(inputs) not in ([1], [-1]) or str(inputs[0].ty.dtype) != "int64" or not plain:
        raise UnsupportedError(f"{attrs['name']}: a running sum has a kernel for integers along the tokens only")
    return calls.call(("running_sum",), pooling.running_sum, inputs[:1], tensor(shape, "int64"))


def row_lengths(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``ReduceL2`` over the numbers of ``[B, K]``."""
    shape = shape_of(inputs[0])
    if len(shape) != 2 or _axes(inputs) not in ([1], [-1]) or not attrs.get("keepdims", 1) or not _is_known(shape[1]):
        raise UnsupportedError(f"{attrs['name']}: a length has a kernel for one vector of each text only")
    columns = int(shape[1])
    return calls.call(
        ("row_lengths", columns), lambda: pooling.row_lengths(columns), inputs[:1], tensor([shape[0], 1])
    )


def _axes(inputs: list[Any]) -> list[int] | None:
    """The second input of a reduction, which must be known."""
    axes = inputs[1] if len(inputs) > 1 else None
    return [int(axis) for axis in axes.value.numpy().reshape(-1)] if isinstance(axes, Constant) else None


def _is_known(size: Any) -> bool:
    return isinstance(size, int | tirx.IntImm)


def _is(size: Any, value: int) -> bool:
    return _is_known(size) and int(size) == value


CONVERTERS: dict[str, Converter] = {
    "CumSum": running_sum,
    "MatMul": product,
    "ReduceL2": row_lengths,
    "ReduceMax": largest_rows,
}
