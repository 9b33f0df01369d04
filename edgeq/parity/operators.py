"""The low-bit operators of an exported model, run alone in every backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from edgeq.parity.feeds import Arrays
from edgeq.parity.isolated import allowed, check_isolated, isolate
from edgeq.parity.reference import RecordedLayer
from edgeq.parity.report import Check
from edgeq.parity.run_folder import target_of
from edgeq.parity.stages import compiled_once, onnx_reference, onnx_runtime


class OperatorsAlone:
    """The low-bit operators of a model, each with an input and output of its own.

    Args:
        whole: The exported model, with its weights.
        layers: What the reference gave each of its low-bit layers, by module name.

    Raises:
        FormatError: If a node belongs to no layer of the reference.
        UnsupportedError: If a low-bit layer of the reference became something else in the model.
    """

    def __init__(self, whole: onnx.ModelProto, layers: Mapping[str, RecordedLayer]) -> None:
        self._model, self._cases = isolate(whole, layers)
        self._feed = {case.input_name: case.value for case in self._cases}
        self._limits = [allowed(case) for case in self._cases]

    def torch(self) -> Check:
        """Checks what the reference itself computed."""
        return self._check("torch compressed", {case.output_name: case.output for case in self._cases})

    def onnx_reference(self) -> Check:
        """Checks the ONNX reference evaluator."""
        return self._check("onnx reference", onnx_reference(self._model)(self._feed))

    def onnx_runtime(self) -> Check:
        """Checks ONNX Runtime."""
        return self._check("onnxruntime", onnx_runtime(self._model.SerializeToString())(self._feed))

    def compiled(self, stage: str, bundle: Path) -> Check:
        """Checks the compiler, for the processor of a bundle that this machine runs."""
        return self._check(stage, compiled_once(self._model, self._feed, target=target_of(bundle)))

    def _check(self, stage: str, outputs: Arrays) -> Check:
        return check_isolated(stage, self._cases, self._limits, [outputs[c.output_name] for c in self._cases])
