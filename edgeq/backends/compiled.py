"""edgeq's own compiler: a graph that is compiled, run once and forgotten."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeq.arrays import Arrays
from edgeq.targets.compiler.compile import compile_onnx
from edgeq.targets.compiler.linking import link_code
from edgeq.targets.compiler.run_plan import CompiledCode, aligned_zeros
from edgeq.targets.runtime.schema import GenerationInfo
from edgeq.targets.toolchain.linkers import find_linker


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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        compiled = compile_onnx(path, target=target)
        library = Path(folder) / "code.so"
        link_code(compiled, library, find_linker(target))
        code = CompiledCode(compiled, library)
    state = []
    if compiled.state:
        batch, context = feed["input_ids"].shape
        sizes = GenerationInfo(context, ())
        state = [aligned_zeros(sizes.state_shape(info.shape, batch), info.dtype) for info in compiled.state]
    results = code.run([feed[info.name] for info in compiled.inputs], state=state)
    return {info.name: result for info, result in zip(compiled.outputs, results, strict=True)}
