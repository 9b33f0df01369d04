"""Writes a model so that its weights can be mapped: external data at 64-byte-aligned offsets."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from edgeq.formats import aligned

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
EXTERNAL_FROM_BYTES = 256
"""Smaller constants (shapes, axes, single scales) stay inside ``model.onnx``."""


def save_with_external_data(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes ``model.onnx`` and, when there is anything to put in it, ``model.onnx.data``.

    Args:
        model: Its large initializers are replaced by references to the data file, in place.
        folder: An existing folder.

    Returns:
        The path of ``model.onnx``.
    """
    large = [t for t in model.graph.initializer if len(t.raw_data) >= EXTERNAL_FROM_BYTES]
    if large:
        with (folder / DATA_FILE).open("wb") as stream:
            for tensor in large:
                stream.write(b"\0" * (aligned(stream.tell()) - stream.tell()))
                offset, data = stream.tell(), tensor.raw_data
                stream.write(data)
                set_external_data(tensor, location=DATA_FILE, offset=offset, length=len(data))
                tensor.ClearField("raw_data")
    # Serialization order of protobuf maps is not fixed by default.
    (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    return folder / MODEL_FILE
