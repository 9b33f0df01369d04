"""Exported ONNX files as backends read them."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import torch

from edgeq.errors import FormatError


def load_model(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Loads an ONNX model.

    Args:
        path: The file.
        weights: Load its external data as well.

    Raises:
        FormatError: If the file or its data is damaged.
    """
    try:
        onnx.checker.check_model(str(path))  # the file: a model in memory would be serialized with its weights
        model = onnx.load(path, load_external_data=weights)
    except Exception as error:  # protobuf, the checker and the file system each raise types of their own
        raise FormatError(f"{path} is not a valid ONNX model ({first_line(error)}); export it again") from error
    return model


def cache_type(model: onnx.ModelProto) -> torch.dtype:
    """Returns the type of a decoder's cache.

    Raises:
        FormatError: If the model has no cache.
    """
    is_cache = re.compile(r"past_key_values\..*\.(key|value)").fullmatch  # those of scales are float32
    types = {value.type.tensor_type.elem_type for value in model.graph.input if is_cache(value.name)}
    proto = onnx.TensorProto
    known = {proto.FLOAT16: torch.float16, proto.FLOAT: torch.float32, proto.INT8: torch.int8}
    if len(types) != 1 or not types <= known.keys():
        raise FormatError("the ONNX model of a decoder should have float16, float32 or int8 caches; export it again")
    return known[types.pop()]


def first_line(error: BaseException) -> str:
    """Returns the first line of what a library says about an error; the others are a traceback of its own."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
