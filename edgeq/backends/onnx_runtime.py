"""ONNX Runtime on the CPU, without any library of edgeq's."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from edgeq.arrays import Arrays
from edgeq.backends.onnx_files import first_line
from edgeq.errors import EdgeqError, FormatError


class OnnxRuntime:
    """A model in ONNX Runtime.

    Args:
        model: The file, or its bytes.
        lean: Compute nothing ahead of calls, and keep no memory between them: packed weights are decoded in every call,
            by the bodies of their operators. The numbers are the same, calls are slower, and what would be held
            otherwise is 8 to 30 bytes a weight.

    Raises:
        FormatError: If ONNX Runtime does not load the model.
    """

    def __init__(self, model: Path | bytes, *, lean: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = not lean
        try:
            self._session = onnxruntime.InferenceSession(
                model,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["ConstantFolding"] if lean else None,
            )
        except Exception as error:  # pybind exceptions share no public base class
            raise FormatError(f"ONNX Runtime does not load the model: {first_line(error)}") from error
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`.

        Raises:
            EdgeqError: If ONNX Runtime cannot run the model.
        """
        try:
            return dict(zip(self._names, self._session.run(self._names, feed), strict=True))
        except Exception as error:
            raise EdgeqError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
