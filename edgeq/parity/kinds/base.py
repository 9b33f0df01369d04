"""What all parity runs have in common: a folder, stages one after the other, checks that add up."""

from __future__ import annotations

import abc
import dataclasses
import functools
from pathlib import Path

from edgeq.backends import Arrays
from edgeq.backends.bundles import BundleAccess, EmulatedBundle
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.memory import give_back
from edgeq.parity.meaning import NativeBundle, check_meaning
from edgeq.parity.reference import Reference
from edgeq.parity.rules.bit_identical import check_bits
from edgeq.parity.rules.end_to_end import Distance, check_distance, check_end_to_end, distance, noise_runs
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.parity.run_folder import bundles_of, float_model_of, task_of_source
from edgeq.progress import Progress
from edgeq.quant.modules import PackedModule
from edgeq.results import Check, Conditions, ParityReport
from edgeq.targets.builtin.target import Target

_STAGES_BESIDE_BUNDLES = 6


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """What a parity run is about.

    Attributes:
        path: The folder.
        checkpoint: Its compressed checkpoint, the reference.
        targets: Targets made from files, by name.
        texts: Texts to run the model on.
        access: How its bundles are reached.
    """

    path: Path
    checkpoint: Checkpoint
    targets: dict[str, Target]
    texts: list[str]
    access: BundleAccess = dataclasses.field(default_factory=BundleAccess)


class ParityRun(abc.ABC):
    """All stages of one run; ``checks`` grows from stage to stage.

    A kind of model says what its reference is, what it is run on, and how a stage's outputs are judged. The
    outputs of a stage are one mapping for each thing that it was run on.

    Args:
        folder: The run.
        progress: Told which stage runs.
    """

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        self.folder = folder
        self.bundles = bundles_of(folder.path, folder.access)
        self.checks: list[Check] = []
        self.not_checked: list[str] = []
        self.want: list[Arrays] = []
        self._progress = progress
        self._steps = _STAGES_BESIDE_BUNDLES + len(self.bundles)
        self._done = 0

    def report(self) -> ParityReport:
        """Runs all stages."""
        self._say("PyTorch")
        self.measure_reference()
        self._say("PyTorch float32")
        self._float_stages()
        self._say("operators alone")
        alone = self.operators_alone()
        self.checks += alone.torch()
        self._say("ONNX reference")
        self.checks += alone.onnx_reference()
        give_back()  # as every backend is closed before the next one opens
        self.compare("onnx reference", self.run_onnx_reference())
        self._say("ONNX Runtime")
        self.checks += alone.onnx_runtime()
        give_back()
        self.compare("onnxruntime", self.run_onnx_runtime(self.folder.path / "onnx"))
        self._bundle_stages(alone)
        self._say("meaning")
        library = self._meaning_stage()
        self._progress("parity", self._steps, self._steps)
        conditions = dataclasses.replace(
            self.conditions(), library=library, not_checked=tuple(self.not_checked)
        )
        return ParityReport(tuple(self.checks), conditions)

    @abc.abstractmethod
    def measure_reference(self) -> None:
        """Runs the reference, clean (``want``) and under noise."""

    @abc.abstractmethod
    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """Wraps a checkpoint, float or compressed, as a reference."""

    @abc.abstractmethod
    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """Runs a reference on everything, under noise if a seed is given."""

    @abc.abstractmethod
    def scored(self) -> list[Arrays]:
        """Says which tokens of the outputs count, as :func:`edgeq.parity.rules.end_to_end.distance` reads it."""

    def results(self, outputs: list[Arrays]) -> list[Arrays]:
        """Returns what the model is for, of all its outputs."""
        return outputs

    @abc.abstractmethod
    def operators_alone(self) -> OperatorsAlone:
        """Records what the reference gave its low-bit layers, and isolates the same layers of the exported graphs."""

    @abc.abstractmethod
    def run_onnx_reference(self) -> list[Arrays]:
        """Runs the exported model in the ONNX reference evaluator."""

    @abc.abstractmethod
    def run_onnx_runtime(self, folder: Path) -> list[Arrays]:
        """Runs an exported model, the compressed one or the float baseline, in ONNX Runtime."""

    @abc.abstractmethod
    def run_native(self, stage: str, bundle: Path) -> list[Arrays]:
        """Runs a bundle of this machine in all ways that must agree, and appends those checks."""

    @abc.abstractmethod
    def run_emulated(self, bundle: Path) -> list[Arrays]:
        """Runs a bundle of another machine, possibly on less than everything."""

    @abc.abstractmethod
    def compare(self, stage: str, got: list[Arrays]) -> None:
        """Compares a stage with the reference, end to end and by its task, and appends those checks."""

    @abc.abstractmethod
    def shared(self, mine: list[Arrays], theirs: list[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
        """Cuts the outputs of two bundles to what both were run on."""

    @abc.abstractmethod
    def conditions(self) -> Conditions:
        """Says what the stages were compared on."""

    def _float_stages(self) -> None:
        """What compression costs, and whether the baseline of the profile computes the float model."""
        source = float_model_of(self.folder.path)
        if source is None:
            self.not_checked.append("torch float32: the float model of this run is not known, or gone")
            return
        baseline, scored = self.folder.path / "float-onnx", self.scored()
        has_baseline = any(baseline.glob("*.onnx"))
        outputs, envelope = self._float_model(source, with_noise=has_baseline)
        self.checks.append(check_distance("torch compressed", self.results(self.want), outputs, scored))
        if not has_baseline:
            self.not_checked.append("onnxruntime float32: the run holds no float-onnx")
            return
        give_back()  # the float model
        found = distance(self.results(self.run_onnx_runtime(baseline)), outputs, scored)
        self.checks.append(check_end_to_end("onnxruntime float32", found, envelope))

    def _float_model(self, source: Path, *, with_noise: bool) -> tuple[list[Arrays], list[Distance]]:
        """Runs the float model, clean and under noise, and forgets it."""
        model = self.reference_of(load_checkpoint(source, task=task_of_source(self.folder.path)))
        outputs = self.results(self.run_reference(model))
        if not with_noise:
            return outputs, []
        envelope = noise_runs(
            lambda seed: distance(self.results(self.run_reference(model, seed=seed)), outputs, self.scored()),
            lambda moved: [moved.rms],
            quantized_values=0,
        )
        return outputs, envelope

    def _bundle_stages(self, alone: OperatorsAlone) -> None:
        """Bundles that run here come first: what they compute is what every other one must compute."""
        if not self.bundles:
            self.not_checked.append("tvm: the run holds no bundle")
        first: tuple[str, list[Arrays]] | None = None
        for bundle in self.bundles:
            stage = f"tvm {bundle.name}"
            self._say(stage)
            if self.folder.access.is_native(bundle):
                self.checks += alone.compiled(stage, bundle, access=self.folder.access)
                give_back()
                got = self.run_native(stage, bundle)
            else:
                got = self.run_emulated(bundle)
            self.compare(stage, got)
            if first is None:
                first = (stage, got)
            else:
                mine, theirs = self.shared(got, first[1])
                self.checks.append(check_bits(stage, mine, theirs, against=first[0]))

    def _meaning_stage(self) -> str:
        """Texts through bundles and through the float model's own library, which is returned."""
        access, path = self.folder.access, self.folder.path
        native = [
            NativeBundle(
                f"tvm {bundle.name}", bundle, functools.partial(access.load, bundle, threads=2, verify=False)
            )
            for bundle in self.bundles
            if access.is_native(bundle)
        ]
        found = check_meaning(float_model_of(path), self.folder.checkpoint, native, task=task_of_source(path))
        self.checks += found.checks
        if found.not_checked:
            self.not_checked.append(f"meaning: {found.not_checked}")
        return found.library

    def forget_decoded(self) -> None:
        """Gives back the reference's decoded weights, which take as much as the float model."""
        for module in self.folder.checkpoint.model.modules():
            if isinstance(module, PackedModule):
                module.forget_decoded()

    def _say(self, stage: str) -> None:
        self.forget_decoded()
        give_back()  # the next stage loads its own models
        self._progress(f"parity: {stage}", self._done, self._steps)
        self._done += 1

    def emulated(self, bundle: Path) -> EmulatedBundle:
        """Returns a bundle of another machine, under the emulator that its target names."""
        return self.folder.access.emulate(bundle, self.folder.targets.get(bundle.name))
