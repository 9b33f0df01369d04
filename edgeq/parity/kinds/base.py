"""What all parity runs have in common: a folder, stages one after the other, checks that add up."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeq.backends import Arrays
from edgeq.backends.bundles import BundleAccess, EmulatedBundle
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.memory import give_back, held
from edgeq.parity.meaning import NativeBundle, check_meaning
from edgeq.parity.reference import Reference
from edgeq.parity.rules.end_to_end import Distance, check_distance, check_end_to_end, distance, noise_runs
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.parity.rules.rule import Again, BundleOutputs, OperatorOutputs, Outputs, Part, Rule, StageOutputs, rules_for
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

    A kind of model says what its reference is, what it is run on, and what of a stage's outputs is judged; the rules
    judge. The outputs of a stage are one mapping for each thing that it was run on. A subclass sets ``reference``.

    Args:
        folder: The run.
        progress: Told which stage runs.
    """

    reference: Reference
    runs_in_float64 = False
    """Whether its float model does; caches hold fewer bits."""

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        self.folder = folder
        self.bundles = bundles_of(folder.path, folder.access)
        self.checks: list[Check] = []
        self.not_checked: list[str] = []
        self.want: list[Arrays] = []
        self.noise_runs = 0
        self._rules: list[Rule] = []
        self._progress = progress
        self._steps = _STAGES_BESIDE_BUNDLES + len(self.bundles)
        self._done = 0

    def report(self) -> ParityReport:
        """Runs all stages."""
        self._say("PyTorch")
        self._measure_reference()
        self._say("PyTorch float32")
        self._float_stages()
        self._say("operators alone")
        before = held()
        self._exported_stages()
        give_back(since=before)
        self._say("meaning")
        library = self._meaning_stage()
        self._progress("parity", self._steps, self._steps)
        conditions = dataclasses.replace(
            self.conditions(), library=library, not_checked=tuple(self.not_checked)
        )
        return ParityReport(tuple(self.checks), conditions)

    @abc.abstractmethod
    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """Wraps a checkpoint, float or compressed, as a reference."""

    def float_reference_of(self, checkpoint: Checkpoint) -> Reference:
        """Wraps the float model that the compressed one is compared with."""
        return self.reference_of(checkpoint)

    @abc.abstractmethod
    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """Runs a reference on everything, under noise if a seed is given."""

    @abc.abstractmethod
    def count_quantized(self) -> int:
        """Counts the values that one run of the reference rounds to int8."""

    @abc.abstractmethod
    def judged(self, outputs: list[Arrays]) -> Outputs:
        """Says what of a stage's outputs is judged, and which tokens of it count."""

    @abc.abstractmethod
    def beginning(self, outputs: list[Arrays]) -> list[Arrays]:
        """Cuts the outputs of a whole run to what a bundle under an emulator is run on."""

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
    def run_native(self, stage: str, bundle: Path) -> tuple[list[Arrays], BundleOutputs]:
        """Runs a bundle of this machine: its outputs, and what it gives in all ways that must agree."""

    @abc.abstractmethod
    def run_emulated(self, bundle: Path) -> list[Arrays]:
        """Runs a bundle of another machine, possibly on less than everything."""

    @abc.abstractmethod
    def shared(self, mine: list[Arrays], theirs: list[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
        """Cuts the outputs of two stages to what both were run on."""

    @abc.abstractmethod
    def conditions(self) -> Conditions:
        """Says what the stages were compared on."""

    def _measure_reference(self) -> None:
        """Runs the reference, clean (``want``) and under noise."""
        self.want = self.run_reference(self.reference)
        self._rules = rules_for(self.judged(self.want))
        runs = noise_runs(
            self._watch,
            lambda moved: moved,
            quantized_values=self.count_quantized(),
            fewest=max(rule.fewest_noise_runs for rule in self._rules),
        )
        self.noise_runs = len(runs)

    def _watch(self, seed: int) -> Sequence[float]:
        """Shows the rules one run of the reference under noise; returns how far it moved what they judge."""
        got = self.run_reference(self.reference, seed=seed)
        whole, beginning = (self._beside_reference("noise", each) for each in (got, self.beginning(got)))
        return [moved for rule in self._rules for moved in rule.watch(whole, beginning)]

    def _beside_reference(self, stage: str, got: list[Arrays]) -> StageOutputs:
        _, want = self.shared(got, self.want)
        return StageOutputs(stage, self.judged(got), self.judged(want), is_whole=_shapes(want) == _shapes(self.want))

    def _judge_operators(self, stage: Iterable[OperatorOutputs]) -> None:
        self.checks += [check for each in stage for rule in self._rules for check in rule.of_operators(each)]

    def _judge_stage(self, stage: str, got: list[Arrays]) -> None:
        outputs = self._beside_reference(stage, got)
        self.checks += [check for rule in self._rules for check in rule.of_stage(outputs)]

    def _judge_bundle(self, bundle: BundleOutputs) -> None:
        self.checks += [check for rule in self._rules for check in rule.of_bundle(bundle)]

    def _float_stages(self) -> None:
        """What compression costs, and whether the baseline of the profile computes the float model."""
        source = float_model_of(self.folder.path)
        if source is None:
            self.not_checked.append("torch float32: the float model of this run is not known, or gone")
            return
        baseline = self.folder.path / "float-onnx"
        has_baseline = any(baseline.glob("*.onnx"))
        floats, envelope = self._float_model(source, with_noise=has_baseline)
        compressed = self.judged(self.want).results
        self.checks.append(check_distance("torch compressed", compressed.arrays, floats.arrays, floats.feeds))
        if not has_baseline:
            self.not_checked.append("onnxruntime float32: the run holds no float-onnx")
            return
        give_back()  # the float model
        found = self._distance_from(floats, self.run_onnx_runtime(baseline))
        check = check_end_to_end("onnxruntime float32", found, envelope)
        if not check.passed:
            check = check_end_to_end("onnxruntime float32", found, [*envelope, *self._own_error(source, floats)])
        self.checks.append(check)

    def _own_error(self, source: Path, floats: Part) -> list[Distance]:
        """How far PyTorch's float32 itself is from the float model in float64, where it runs so.

        Noise moves what goes into linear layers. In a model whose values differ a thousandfold, what PyTorch rounds
        between them is more, and another program that computes more exactly is as far away.
        """
        if not self.runs_in_float64:
            return []
        task, tokenizer = task_of_source(self.folder.path), self.folder.checkpoint.tokenizer
        checkpoint = load_checkpoint(source, task=task, tokenizer=tokenizer)
        checkpoint.model.double()
        return [self._distance_from(floats, self.run_reference(self.float_reference_of(checkpoint)))]

    def _float_model(self, source: Path, *, with_noise: bool) -> tuple[Part, list[Distance]]:
        """Runs the float model, clean and under noise, and forgets it."""
        task, tokenizer = task_of_source(self.folder.path), self.folder.checkpoint.tokenizer
        model = self.float_reference_of(load_checkpoint(source, task=task, tokenizer=tokenizer))
        floats = self.judged(self.run_reference(model)).results
        if not with_noise:
            return floats, []
        envelope = noise_runs(
            lambda seed: self._distance_from(floats, self.run_reference(model, seed=seed)),
            lambda moved: [moved.rms],
            quantized_values=0,
        )
        return floats, envelope

    def _distance_from(self, want: Part, got: list[Arrays]) -> Distance:
        return distance(self.judged(got).results.arrays, want.arrays, want.feeds)

    def _exported_stages(self) -> None:
        """The exported model and its bundles; what goes in and out of each operator is held until their end."""
        alone = self.operators_alone()
        self._judge_operators(alone.torch())
        self._say("ONNX reference")
        self._judge_operators(alone.onnx_reference())
        give_back()  # as every backend is closed before the next one opens
        self._judge_stage("onnx reference", self.run_onnx_reference())
        self._say("ONNX Runtime")
        self._judge_operators(alone.onnx_runtime())
        give_back()
        self._judge_stage("onnxruntime", self.run_onnx_runtime(self.folder.path / "onnx"))
        self._bundle_stages(alone)

    def _bundle_stages(self, alone: OperatorsAlone) -> None:
        """Bundles that run here come first: what they compute is what every other one must compute."""
        if not self.bundles:
            self.not_checked.append("tvm: the run holds no bundle")
        first: tuple[str, list[Arrays]] | None = None
        for bundle in self.bundles:
            stage = f"tvm {bundle.name}"
            self._say(stage)
            if self.folder.access.is_native(bundle):
                self._judge_operators(alone.compiled(stage, bundle, access=self.folder.access))
                give_back()
                got, ways = self.run_native(stage, bundle)
                self._judge_bundle(ways)
            else:
                got = self.run_emulated(bundle)
            self._judge_stage(stage, got)
            if first is None:
                first = (stage, got)
            else:
                mine, theirs = self.shared(got, first[1])
                self._judge_bundle(BundleOutputs(stage, [Again("", mine, theirs, against=first[0])]))

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
        found = check_meaning(
            float_model_of(path), self.folder.checkpoint, native,
            task=task_of_source(path), is_finite=True,  # the float stages have loaded it
        )  # fmt: skip
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


def _shapes(outputs: list[Arrays]) -> list[dict[str, tuple[int, ...]]]:
    return [{name: value.shape for name, value in batch.items()} for batch in outputs]
