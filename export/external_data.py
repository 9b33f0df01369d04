"""Writes models so that their weights can be mapped: external data at 64-byte-aligned offsets, each stored once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
import onnx_ir as ir
from onnx.external_data_helper import set_external_data

from edgeq.formats.low_bit import aligned

DATA_FILE = "model.onnx.data"
VIEW = "#"
"""What follows it in a name only says how the tensor's bytes are read: a table whose rows are gathered and multiplied
by is two tensors of different shapes, and stored once."""
EXTERNAL_FROM_BYTES = 256
"""Smaller constants (shapes, axes, single scales) stay inside the ``.onnx`` file."""


class ModelWriter:
    """Writes the graphs of one model over one data file; a context manager.

    A weight that several graphs read, under one name up to :data:`VIEW`, is stored by the first of them.

    Args:
        folder: An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream = (folder / DATA_FILE).open("wb")
        self._stored: dict[tuple[str, bytes], int] = {}

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if not self._stored:
            (self._folder / DATA_FILE).unlink()

    def place(self, name: str, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """Writes a weight into the data file, from where it lies in memory.

        A graph that is serialized with its weights inside would hold them twice more.

        Args:
            name: Its name.
            tensor: Its values.

        Returns:
            A reference to the data file in its place; the tensor itself if it is small.
        """
        if tensor.nbytes < EXTERNAL_FROM_BYTES:
            return tensor
        array = np.ascontiguousarray(tensor.numpy())
        data = array.data.cast("B")
        offset = self._place(name, data)
        shape = ir.Shape(array.shape)
        return ir.ExternalTensor(
            DATA_FILE, offset, len(data), tensor.dtype, shape=shape, name=name, base_dir=self._folder
        )

    def write(self, name: str, model: onnx.ModelProto) -> Path:
        """Writes ``<name>.onnx``.

        Args:
            name: Name of the graph.
            model: Large initializers that it holds are replaced by references to the data file, in place.

        Returns:
            The path of the file.
        """
        for tensor in model.graph.initializer:
            data = tensor.raw_data  # every access is a copy
            if len(data) >= EXTERNAL_FROM_BYTES:
                offset = self._place(tensor.name, data)
                set_external_data(tensor, location=DATA_FILE, offset=offset, length=len(data))
                tensor.ClearField("raw_data")
        self._stream.flush()
        path = self._folder / f"{name}.onnx"
        # Serialization order of protobuf maps is not fixed by default.
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def _place(self, name: str, data: bytes | memoryview) -> int:
        """Returns where the bytes of a tensor are in the data file, and puts them there if they are not."""
        key = (name.partition(VIEW)[0], hashlib.sha256(data).digest())
        if key not in self._stored:
            self._stream.write(b"\0" * (aligned(self._stream.tell()) - self._stream.tell()))
            self._stored[key] = self._stream.tell()
            self._stream.write(data)
        return self._stored[key]
