"""Counts the multiply-accumulates of one call of an exported model, from the shapes that ONNX Runtime met."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def count_multiply_adds(model: Path, inputs: Callable[[Any], np.ndarray]) -> int:
    """Runs a model once and adds up its matrix products, attention included.

    edgeq's operators run by their bodies, so a low-bit matmul counts as the product of its codes. What depends on
    no input, as unpacked codes and mixed cores, is computed when the session starts and does not count.

    Args:
        model: ``model.onnx``.
        inputs: Makes the value of an input, told its ``onnxruntime.NodeArg``.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        session.run(None, {entry.name: inputs(entry) for entry in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return sum(_of_kernel(event["args"]) for event in events if event["name"].endswith("_kernel_time"))


def _of_kernel(kernel: dict[str, Any]) -> int:
    shapes, (output, *_) = _shapes(kernel["input_type_shape"]), _shapes(kernel["output_type_shape"])
    if kernel["op_name"] == "MatMul":
        return math.prod(output) * shapes[0][-1]
    if kernel["op_name"] == "Gemm":
        return math.prod(shapes[0]) * output[-1]
    if kernel["op_name"] == "Attention":
        query, key = shapes[:2]
        return 2 * math.prod(query) * key[-2]
    return 0


def _shapes(listed: list[dict[str, list[int]]]) -> list[list[int]]:
    """Reads shapes from a list of ``{type: shape}``."""
    return [shape for entry in listed for shape in entry.values()]
