"""ONNX file to compiled Relax executable: the whole way, without files in between."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.passes import run_passes
from edgeq.targets.passes.cache import KEY_CACHE, VALUE_CACHE
from edgeq.targets.runtime.tvm_import import import_tvm
from edgeq.targets.target import Target


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model.

    Attributes:
        name: Name in the ONNX graph.
        dtype: numpy name of the element type.
        shape: Sizes; a dimension that may take any size is its name.
        maximum: For ids: the largest value that every table they index has a row for.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    maximum: int | None = None


@dataclasses.dataclass(frozen=True)
class CompiledModel:
    """What :func:`compile_onnx` returns.

    Attributes:
        executable: ``tvm.relax.VMExecutable`` whose function ``main`` takes the inputs, then the weights, and returns
            a tuple of the outputs.
        inputs: Inputs of ``main``, in order.
        outputs: Outputs, in order.
        weights: Names and arrays of the tensors after the inputs and the state, in order.
        state: Tensors between inputs and weights that ``main`` changes in place and the caller keeps from call to
            call: the caches of a decoder, in which ``context`` is the capacity in tokens and ``context_blocks`` is
            ``context / 16``.
    """

    executable: Any
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    weights: list[tuple[str, np.ndarray]]
    state: list[TensorInfo] = dataclasses.field(default_factory=list)


def compile_onnx(onnx_file: Path, *, target: Target) -> CompiledModel:
    """Compiles an ONNX file for one target.

    Args:
        onnx_file: ``model.onnx``; external data is read from beside it.
        target: Processor to compile for.

    Returns:
        The executable, its interface and the tensors it needs.

    Raises:
        FormatError: If the file is not a valid ONNX model or its external data is damaged.
        UnsupportedError: If an operator has no kernel.
    """
    tvm = import_tvm()  # before the modules below, which import it as usual
    from edgeq.targets.importer import EdgeqImporter
    from edgeq.targets.isa import isa_named

    model = _load(onnx_file)
    run_passes(model.graph)
    arguments = [_tensor_info(value, maximum=_largest_id(model.graph, value.name)) for value in model.graph.input]
    outputs = [_tensor_info(value) for value in model.graph.output]
    importer = EdgeqImporter(isa_named(target.isa))
    module = importer.import_graph(model.graph, _opset(model))
    config = tvm.target.Target(target.tvm_target)
    with tvm.transform.PassContext(opt_level=3):
        executable = tvm.compile(module, target=config)
    return CompiledModel(
        executable,
        inputs=[a for a in arguments if not _is_state(a)],
        outputs=outputs,
        weights=[(w.name, w.array) for w in importer.weights],
        state=[a for a in arguments if _is_state(a)],
    )


def _is_state(argument: TensorInfo) -> bool:
    return argument.name.startswith((KEY_CACHE, VALUE_CACHE))


def _load(onnx_file: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(onnx_file)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise FormatError(f"{onnx_file}: {error.filename or 'a file it refers to'} does not exist") from error
    except Exception as error:  # the protobuf parser and the checker raise types of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{onnx_file} is not a valid ONNX model: {reason}; export it again") from error
    return model


def _opset(model: onnx.ModelProto) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise UnsupportedError("the ONNX model names no version of the standard operators")


def _tensor_info(value: onnx.ValueInfoProto, maximum: int | None = None) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = tuple(d.dim_param or int(d.dim_value) for d in tensor.shape.dim)
    return TensorInfo(value.name, str(np.dtype(dtype)), shape, maximum)


def _largest_id(graph: onnx.GraphProto, name: str) -> int | None:
    """Returns the last row of the smallest table that the input indexes directly, or None if it indexes none."""
    rows = []
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "LowBitEmbedding" and node.input[0] == name:
            rows.append(next(int(a.i) for a in node.attribute if a.name == "N"))
        if node.op_type == "Gather" and node.input[1] == name and node.input[0] in tables:
            rows.append(int(tables[node.input[0]].dims[0]))
    return min(rows) - 1 if rows else None
