"""The backends of a parity run, each as a function from one feed to its outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from edgeq.errors import EdgeqError, FormatError
from edgeq.parity.bits import Run
from edgeq.parity.feeds import Arrays


def load_model(path: Path) -> onnx.ModelProto:
    """Loads an ONNX model with its external data.

    Raises:
        FormatError: If the file or its data is damaged.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, the checker and the file system each raise types of their own
        raise FormatError(f"{path} is not a valid ONNX model ({_first_line(error)}); export it again") from error
    return model


def cache_type(model: onnx.ModelProto) -> torch.dtype:
    """Returns the type of a decoder's cache.

    Raises:
        FormatError: If the model has no cache.
    """
    types = {v.type.tensor_type.elem_type for v in model.graph.input if v.name.startswith("past_key_values.")}
    known = {onnx.TensorProto.FLOAT16: torch.float16, onnx.TensorProto.FLOAT: torch.float32}
    if len(types) != 1 or not types <= known.keys():
        raise FormatError("the ONNX model of a decoder should have float16 or float32 caches; export it again")
    return known[types.pop()]


def onnx_reference(model: onnx.ModelProto) -> Run:
    """The ONNX project's own evaluator in numpy, running the bodies of the low-bit operators."""
    evaluator = ReferenceEvaluator(_without_overloads(model))

    def run(feed: Arrays) -> Arrays:
        return dict(zip(evaluator.output_names, evaluator.run(None, feed), strict=True))

    return run


def onnx_runtime(model: Path | bytes) -> Run:
    """ONNX Runtime on the CPU, without any library of edgeq's.

    Raises:
        FormatError: If it does not load the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # pybind exceptions share no public base class
        raise FormatError(f"ONNX Runtime does not load the model: {_first_line(error)}") from error
    names = [output.name for output in session.get_outputs()]

    def run(feed: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:
            raise EdgeqError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error

    return run


def compiled_once(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], *, target: Any) -> Arrays:
    """Compiles a model for a target that runs on this machine, and runs it once.

    Args:
        model: A model with its weights inside.
        feed: Arrays by input name of the compiled model. The caches of a decoder are empty.
        target: ``edgeq.targets.builtin.target.Target``.

    Raises:
        UnsupportedError: If an operator has no kernel.
        EdgeqError: If the compiler fails.
    """
    from edgeq.targets.bundle.interface import plain_specs
    from edgeq.targets.bundle.writer import link_model
    from edgeq.targets.compiler.compile import compile_onnx
    from edgeq.targets.runtime.library import open_library
    from edgeq.targets.runtime.schema import GenerationInfo
    from edgeq.targets.runtime.state import State
    from edgeq.targets.toolchain.linkers import find_linker

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        compiled = compile_onnx(path, target=target)
        library = Path(folder) / "model.so"
        link_model(compiled, library, find_linker(target))
        inputs = [feed[info.name] for info in compiled.inputs]
        state: list[Any] = []
        if compiled.state:
            batch, context = feed["input_ids"].shape
            state = State(GenerationInfo(context, (), plain_specs(compiled.state)), batch).tensors
        results = open_library(library, [*state, *(array for _, array in compiled.weights)])(inputs)
    return {info.name: result for info, result in zip(compiled.outputs, results, strict=True)}


def _without_overloads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives overloaded functions names of their own: the evaluator would run the last one for all nodes."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for item in (*plain.functions, *plain.graph.node):
        if item.overload:
            name = "name" if isinstance(item, onnx.FunctionProto) else "op_type"
            setattr(item, name, f"{getattr(item, name)}_{item.overload}")
            item.overload = ""
    return plain


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
