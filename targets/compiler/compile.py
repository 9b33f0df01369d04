"""ONNX file to kernels and plans: the whole way, without files in between."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.builtin.target import Target
from edgeq.targets.compiler.library_output import without_library_output
from edgeq.targets.compiler.limits import PositionLimit, position_limit
from edgeq.targets.compiler.objects import PASS_OPTIONS, compile_kernels
from edgeq.targets.compiler.passes import run_passes
from edgeq.targets.compiler.passes.cache import STATE
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER
from edgeq.targets.compiler.passes.source import join_encoder
from edgeq.targets.compiler.tvm_import import import_tvm
from edgeq.targets.runtime.plan import Plan
from edgeq.targets.runtime.tensor_parser import CONSTANT

if TYPE_CHECKING:
    from edgeq.targets.compiler.importer import WeightTensor

ENCODER, DECODER_FIRST, DECODER_STEP = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"
"""Files of an encoder-decoder, as optimum names them."""

_SIZE_NAMES = {
    "batch_size": "batch",
    "sequence_length": "sequence",
    "encoder_sequence_length": "sequence",
    "decoder_sequence_length": "sequence",
}
"""Graphs with a cache use other names than those without; bundles use one."""


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
class CompiledFunction:
    """The interface of one function; it takes inputs, state and all weights of the model, in this order.

    Attributes:
        inputs: Inputs, in order.
        outputs: Outputs, in order; the state is none of them.
        state: Tensors after the inputs that the function changes in place and the caller keeps from call to call: the
            caches of a decoder, in which ``context`` is the capacity in tokens and ``context_blocks`` is
            ``context / 16`` (``source_context`` for the encoder input of an encoder-decoder).
        limit: How long a sequence may be, as the tables of positions say; None if there are none.
    """

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    state: list[TensorInfo]
    limit: PositionLimit | None = None


@dataclasses.dataclass(frozen=True)
class CompiledModel:
    """What :func:`compile_onnx` and :func:`compile_folder` return.

    Attributes:
        kernels: The object file of each kernel that the plans call, by the kernel's symbol.
        plans: The plan of each function, ``main`` and for an encoder-decoder ``encode``.
        inputs: Inputs of ``main``, in order.
        outputs: Outputs of ``main``, in order.
        weights: The tensors after the inputs and the state, in order, constants of the graphs last.
        state: State of ``main``; see :class:`CompiledFunction`.
        encoder: Interface of the function ``encode`` of an encoder-decoder, which reads the encoder input and fills its
            caches. None for other models.
        limit: How long a sequence of ``main`` may be; see :class:`CompiledFunction`.
    """

    kernels: dict[str, bytes]
    plans: dict[str, Plan]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    weights: list[WeightTensor]
    state: list[TensorInfo] = dataclasses.field(default_factory=list)
    encoder: CompiledFunction | None = None
    limit: PositionLimit | None = None


def compile_folder(folder: Path, *, target: Target, prefix: str = "") -> CompiledModel:
    """Compiles what ``edgeq export`` wrote: one graph, or the graphs of an encoder-decoder.

    Args:
        folder: The folder.
        target: Processor to compile for.
        prefix: Beginning of the kernels' symbols, so that those for several processors fit into one program.

    Returns:
        As :func:`compile_onnx`.

    Raises:
        FormatError: If a file is not a valid ONNX model or its external data is damaged.
        UnsupportedError: If an operator has no kernel.
    """
    if not (folder / DECODER_STEP).is_file():
        return compile_onnx(folder / "model.onnx", target=target, prefix=prefix)
    encoder, first, step = (_load(folder / name) for name in (ENCODER, DECODER_FIRST, DECODER_STEP))
    encode = join_encoder(encoder.graph, first.graph)
    return _compile({"encode": encode, "main": step.graph}, _opset(step), target, prefix)


def compile_onnx(onnx_file: Path, *, target: Target, prefix: str = "") -> CompiledModel:
    """Compiles an ONNX file for one target.

    Args:
        onnx_file: ``model.onnx``; external data is read from beside it.
        target: Processor to compile for.
        prefix: Beginning of the kernels' symbols.

    Returns:
        The executable, its interface and the tensors it needs.

    Raises:
        FormatError: If the file is not a valid ONNX model or its external data is damaged.
        UnsupportedError: If an operator has no kernel.
    """
    model = _load(onnx_file)
    return _compile({"main": model.graph}, _opset(model), target, prefix)


@without_library_output()
def _compile(graphs: dict[str, onnx.GraphProto], opset: int, target: Target, prefix: str) -> CompiledModel:
    import_tvm()  # before the modules below, which import it as usual
    from edgeq.targets.compiler.importer import EdgeqImporter
    from edgeq.targets.compiler.isa import isa_named
    from edgeq.targets.compiler.kernels.numerics import instructions_of

    for graph in graphs.values():
        run_passes(graph)
    functions = {name: _interface(graph) for name, graph in graphs.items()}
    isa = isa_named(target.isa)
    importer = EdgeqImporter(isa)
    with instructions_of(isa):
        module = importer.import_graphs(graphs, opset)
    return compile_module(module, functions, importer.weights, target, prefix=prefix)


@without_library_output()
def compile_module(
    module: Any,
    functions: dict[str, CompiledFunction],
    weights: list[WeightTensor],
    target: Target,
    *,
    prefix: str = "",
) -> CompiledModel:
    """Compiles Relax functions.

    Args:
        module: ``tvm.IRModule`` with the functions; each takes its inputs, its state and the weights and returns a
            tuple.
        functions: Their interfaces; outputs beyond what a plan gives are taken away.
        weights: The weights.
        target: Processor to compile for.
        prefix: Beginning of the kernels' symbols.

    Raises:
        UnsupportedError: If a function does something that no plan can say.
    """
    tvm = import_tvm()
    # Kernels are built for the target from here on: passes that make some of their own look at it.
    chosen = tvm.target.Target(target.tvm_target)
    with chosen, tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        plans, constants, kernels = _lower(module, functions, weights=len(weights), prefix=prefix)
    objects = compile_kernels(kernels, target)
    for name, function in functions.items():
        del function.outputs[len(plans[name].outputs) :]  # an encoder's graph gives the caches that it fills as well
    main = functions["main"]
    return CompiledModel(
        objects,
        plans,
        inputs=main.inputs,
        outputs=main.outputs,
        weights=[*weights, *constants],
        state=main.state,
        encoder=functions.get("encode"),
        limit=main.limit,
    )


def _lower(
    module: Any, functions: dict[str, CompiledFunction], *, weights: int, prefix: str
) -> tuple[dict[str, Plan], list[WeightTensor], Any]:
    """Returns the plans, the constants that they need beyond the weights, and the kernels that they call."""
    from edgeq.targets.compiler.importer import WeightTensor
    from edgeq.targets.compiler.lowering import Constants, kernels_of, lower, make_plan

    lowered, constants = lower(module), Constants(weights)
    plans = {
        name: make_plan(
            lowered,
            name,
            inputs=len(function.inputs),
            state=len(function.state),
            names=_SIZE_NAMES,
            constants=constants,
        )
        for name, function in functions.items()
    }
    arrays = [WeightTensor(f"constant.{number}", array, CONSTANT) for number, array in enumerate(constants.arrays)]
    return plans, arrays, kernels_of(lowered, plans, prefix)


def _interface(graph: onnx.GraphProto) -> CompiledFunction:
    arguments = [_tensor_info(value, maximum=_largest_id(graph, value.name)) for value in graph.input]
    return CompiledFunction(
        inputs=[argument for argument in arguments if not argument.name.startswith(STATE)],
        outputs=[_tensor_info(value) for value in graph.output],
        state=[argument for argument in arguments if argument.name.startswith(STATE)],
        limit=position_limit(graph),
    )


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
    shape = tuple(_SIZE_NAMES.get(d.dim_param, d.dim_param) or int(d.dim_value) for d in tensor.shape.dim)
    return TensorInfo(value.name, str(np.dtype(dtype)), shape, maximum)


def _largest_id(graph: onnx.GraphProto, name: str) -> int | None:
    """Returns the last row of the smallest table that the input indexes directly, or None if it indexes none."""
    rows = []
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "LowBitEmbedding" and node.input[0] == name:
            rows.append(next(int(a.i) for a in node.attribute if a.name == "N"))
        if node.op_type == PANEL_GATHER and node.input[1] == name:
            rows.append(next(int(a.i) for a in node.attribute if a.name == "rows"))
        if node.op_type == "Gather" and node.input[1] == name and node.input[0] in tables:
            rows.append(int(tables[node.input[0]].dims[0]))
    return min(rows) - 1 if rows else None
