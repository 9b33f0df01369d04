"""The low-bit operators of an exported model, run alone in every backend."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgeq.backends import Arrays
from edgeq.backends.bundles import BundleAccess
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.parity.reference import RecordedAttention, RecordedLayer
from edgeq.parity.rules.isolated import Case, allowed, isolate
from edgeq.parity.rules.isolated_attention import allowed_attention, isolate_attention
from edgeq.parity.rules.rule import Allowed, OperatorOutputs


class OperatorsAlone:
    """The low-bit operators of a model's graphs, each with an input and output of its own.

    Every method returns what a backend made of each graph that has any: factors may all be float.

    Args:
        graphs: The exported graphs, with their weights; a single one has no name.
        layers: What the reference gave each of its low-bit layers, by module name.
        attention: What it gave its int8 attention, by module name; of a model that is one graph.

    Raises:
        FormatError: If a node belongs to no layer of the reference.
        UnsupportedError: If a low-bit layer of the reference became something else in a graph.
    """

    def __init__(
        self,
        graphs: Mapping[str, onnx.ModelProto],
        layers: Mapping[str, RecordedLayer],
        *,
        attention: Mapping[str, RecordedAttention] | None = None,
    ) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="edgeq-operators-")
        folder = Path(self._files.name)
        self._graphs: dict[str, _Alone | _AttentionAlone] = {}
        self._graphs |= {name: _Alone(graph, layers, folder / f"{name}.onnx") for name, graph in graphs.items()}
        if attention is not None:
            graph = next(iter(graphs.values()))
            self._graphs["attention"] = _AttentionAlone(graph, attention, folder / "attention.onnx")

    def torch(self) -> Iterator[OperatorOutputs]:
        """Gives what the reference itself computed."""
        return self._outputs("torch compressed", lambda alone: alone.recorded())

    def onnx_reference(self) -> Iterator[OperatorOutputs]:
        """Runs the ONNX reference evaluator."""
        return self._outputs("onnx reference", lambda alone: OnnxReference(onnx.load(alone.path))(alone.feed))

    def onnx_runtime(self) -> Iterator[OperatorOutputs]:
        """Runs ONNX Runtime."""
        return self._outputs(
            "onnxruntime", lambda alone: OnnxRuntime(alone.path, lean=True)(alone.feed)
        )

    def compiled(self, stage: str, bundle: Path, *, access: BundleAccess) -> Iterator[OperatorOutputs]:
        """Compiles them for the processor of a bundle that this machine runs, and runs them."""

        def run(alone: _Alone | _AttentionAlone) -> Arrays:
            return access.compile_and_run(onnx.load(alone.path), alone.feed, bundle=bundle)

        return self._outputs(stage, run)

    def _outputs(self, stage: str, run: Callable[[_Alone | _AttentionAlone], Arrays]) -> Iterator[OperatorOutputs]:
        for name, alone in self._graphs.items():
            if alone.cases:
                outputs = alone.in_order(run(alone))
                yield OperatorOutputs(f"{stage} {name}".strip(), alone.cases, alone.limits, outputs)


class _Alone:
    """The operators of one graph; the file at ``path`` holds them, and memory what goes in and out of them."""

    def __init__(self, graph: onnx.ModelProto, layers: Mapping[str, RecordedLayer], path: Path) -> None:
        model, self.cases = isolate(graph, layers)
        onnx.save(model, path)
        self.path = path
        self.feed = {case.input_name: case.value for case in self.cases}
        self.limits: list[Allowed] = [allowed(case) for case in self.cases]

    def recorded(self) -> Arrays:
        return {case.output_name: case.output for case in self.cases}

    def in_order(self, outputs: Arrays) -> Sequence[np.ndarray]:
        cases: Sequence[Case] = self.cases
        return [outputs[case.output_name] for case in cases]


class _AttentionAlone:
    """The int8 attention of a graph; the file at ``path`` holds it."""

    def __init__(self, graph: onnx.ModelProto, attention: Mapping[str, RecordedAttention], path: Path) -> None:
        model, self.cases = isolate_attention(graph, attention)
        onnx.save(model, path)
        self.path = path
        self.feed = {name: value for case in self.cases for name, value in case.feed.items()}
        self.limits: list[Allowed] = [allowed_attention(case.layer) for case in self.cases]

    def recorded(self) -> Arrays:
        return {case.output_name: case.layer.output for case in self.cases}

    def in_order(self, outputs: Arrays) -> Sequence[np.ndarray]:
        return [outputs[case.output_name] for case in self.cases]
