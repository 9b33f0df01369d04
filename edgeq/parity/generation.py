"""Decoders: texts that the reference made, through every stage token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.errors import UnsupportedError
from edgeq.models import GenerativeAdapter, TorchDecoder
from edgeq.parity.bits import check_bits
from edgeq.parity.continuations import Continuation, make_continuations
from edgeq.parity.envelope import Distance, check_distance, check_end_to_end, distance, noise_runs
from edgeq.parity.feeds import Arrays
from edgeq.parity.operators import OperatorsAlone
from edgeq.parity.parity_run import ParityRun, RunFolder
from edgeq.parity.reference import Reference
from edgeq.parity.run_folder import is_native, source_of
from edgeq.parity.stages import cache_type, onnx_reference, onnx_runtime
from edgeq.parity.steps import Choices, check_steps, logit_noise
from edgeq.progress import Progress
from edgeq.targets.emulator import run_many
from edgeq.targets.runtime.loader import load
from edgeq.targets.runtime.manifest import read_manifest

EMULATED_TOKENS = 32
_STEPS_WITHOUT_CACHE = 6


@dataclasses.dataclass(frozen=True)
class _NoiseRun:
    """What is kept of a noise run: all logits would fill the memory."""

    whole: Distance
    beginning: Distance
    moved: np.ndarray


class GenerationParity(ParityRun):
    """Parity of a model that continues texts."""

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress)
        self.exported = self.load_exported()
        self._cache_dtype = cache_type(self.exported)
        self.decoder = self._decoder(folder.checkpoint)
        self.reference = self._reference(folder.checkpoint, self.decoder)
        adapter = folder.checkpoint.adapter
        self.texts = make_continuations(
            self.decoder,
            vocabulary=adapter.config.vocab_size,
            longest=min([adapter.max_positions, *map(_context, self.bundles)]),
            tokenizer=folder.checkpoint.tokenizer,
            texts=folder.texts,
        )
        self.beginnings = [text.beginning(EMULATED_TOKENS) for text in self.texts]

    def run_stages(self) -> dict[str, Any]:
        """See :meth:`ParityRun.run_stages`."""
        self.want = self._whole(self.reference)
        self.choices = Choices.of(self.want)
        tokens = [{"input_ids": np.concatenate(text.rows)} for text in self.texts]
        self.noisy = noise_runs(
            self._noise_run,
            lambda run: run.whole.rms,
            quantized_values=self.reference.quantized_values(tokens),
        )
        self.noise = logit_noise([run.moved for run in self.noisy])
        self._float_stages()
        alone = self._operators_alone()
        self._onnx_stages(alone)
        self._bundle_stages(alone)
        return {
            "prompts": [[len(prompt) for prompt in text.prompts] for text in self.texts],
            "new_tokens": [text.new for text in self.texts],
            "noise_runs": len(self.noisy),
        }

    def _float_stages(self) -> None:
        """What compression costs, and whether the baseline of the profile computes the float model."""
        self.say("PyTorch float32")
        source = source_of(self.folder.path)
        if source is None:
            self.not_checked.append("torch float32: the float model of this run is not known, or gone")
            return
        checkpoint = load_checkpoint(source)
        model = self._reference(checkpoint, self._decoder(checkpoint))
        outputs, scored = self._whole(model), _scored(self.texts)
        self.checks.append(check_distance("torch compressed", self.want, outputs, scored))
        baseline = self.folder.path / "float-onnx" / "model.onnx"
        if not baseline.is_file():
            self.not_checked.append("onnxruntime float32: the run holds no float-onnx")
            return
        envelope = noise_runs(
            lambda seed: distance(self._whole(model, seed=seed), outputs, scored),
            lambda moved: moved.rms,
            quantized_values=0,
        )
        run = onnx_runtime(baseline)
        got = [text.step_by_step(run, self._empty(text)) for text in self.texts]
        self.checks.append(check_end_to_end("onnxruntime float32", distance(got, outputs, scored), envelope))

    def _operators_alone(self) -> OperatorsAlone:
        self.say("operators alone")
        lone = self.texts[-1]
        alone = OperatorsAlone(self.exported, self.reference.record({**lone.feed, **self._empty(lone)}))
        self.checks.append(alone.torch())
        return alone

    def _onnx_stages(self, alone: OperatorsAlone) -> None:
        self.say("ONNX reference")
        self.checks.append(alone.onnx_reference())
        evaluator = onnx_reference(self.exported)
        self._compare("onnx reference", [text.whole(evaluator, self._empty(text)) for text in self.texts])
        self.say("ONNX Runtime")
        self.checks.append(alone.onnx_runtime())
        runtime = onnx_runtime(self.folder.path / "onnx" / "model.onnx")
        self._compare("onnxruntime", [text.step_by_step(runtime, self._empty(text)) for text in self.texts])

    def _compare(self, stage: str, got: list[Arrays]) -> None:
        """Compares a stage with PyTorch at the steps it was run on: all of them, or the first of each text."""
        steps = [outputs["logits"].shape[1] for outputs in got]
        is_whole = steps == [text.new for text in self.texts]
        want = [{"logits": w["logits"][:, :count]} for w, count in zip(self.want, steps, strict=True)]
        found = distance(got, want, _scored(self.texts if is_whole else self.beginnings))
        envelope = [run.whole if is_whole else run.beginning for run in self.noisy]
        self.checks.append(check_end_to_end(stage, found, envelope))
        self.checks.append(check_steps(stage, got, self.choices, noise=self.noise))

    def _bundle_stages(self, alone: OperatorsAlone) -> None:
        """Bundles that run here come first: what they compute is what every other one must compute."""
        if not self.bundles:
            self.not_checked.append("tvm: the run holds no bundle")
        first: tuple[str, list[Arrays]] | None = None
        for bundle in self.bundles:
            stage = f"tvm {bundle.name}"
            self.say(stage)
            got = self._native(stage, bundle, alone) if is_native(bundle) else self._emulated(bundle)
            self._compare(stage, got)
            if first is None:
                first = (stage, got)
            else:
                shared = [_steps(mine, theirs) for mine, theirs in zip(got, first[1], strict=True)]
                mine, theirs = ([pair[side] for pair in shared] for side in (0, 1))
                self.checks.append(check_bits(stage, mine, theirs, against=first[0]))

    def _native(self, stage: str, bundle: Path, alone: OperatorsAlone) -> list[Arrays]:
        self.checks.append(alone.compiled(stage, bundle))
        two, one = load(bundle, threads=2), load(bundle, threads=1, verify=False)
        got = [text.in_bundle(two) for text in self.texts]
        single = [text.in_bundle(one) for text in self.texts]
        self.checks.append(check_bits(f"{stage}, 1 thread", single, got, against="2 threads"))
        lone = [
            {"logits": np.concatenate([Continuation((row,), text.new).in_bundle(two)["logits"] for row in text.rows])}
            for text in self.texts
        ]
        self.checks.append(check_bits(f"{stage}, text by text", lone, got, against="the whole batch"))
        again, want = [], []
        for text, outputs in zip(self.texts, got, strict=True):
            steps = np.unique(np.linspace(0, text.new - 1, _STEPS_WITHOUT_CACHE).astype(int)).tolist()
            again.append(text.in_bundle_without_cache(two, steps))
            want.append({"logits": outputs["logits"][:, steps]})
        self.checks.append(check_bits(f"{stage}, without cache", again, want, against="step by step"))
        return got

    def _emulated(self, bundle: Path) -> list[Arrays]:
        target = self.folder.targets.get(bundle.name)
        found = []
        for text in self.beginnings:
            calls = run_many(bundle, text.bundle_inputs(), target=target)
            found.append({"logits": np.stack([outputs["logits"] for outputs in calls], axis=1)})
        return found

    def _noise_run(self, seed: int) -> _NoiseRun:
        got = self._whole(self.reference, seed=seed)
        cut = [
            [{"logits": o["logits"][:, : text.new]} for o, text in zip(outputs, self.beginnings, strict=True)]
            for outputs in (got, self.want)
        ]
        return _NoiseRun(
            distance(got, self.want, _scored(self.texts)),
            distance(cut[0], cut[1], _scored(self.beginnings)),
            self.choices.moved(got),
        )

    def _whole(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """Runs PyTorch on all texts, under noise if a seed is given."""

        def run(feed: Arrays) -> Arrays:
            if seed is None:
                return reference.run([feed])[0]
            return reference.run_with_noise([feed], seed=seed)[0]

        return [text.whole(run, self._empty(text)) for text in self.texts]

    def _decoder(self, checkpoint: Checkpoint) -> TorchDecoder:
        if not isinstance(checkpoint.adapter, GenerativeAdapter):
            raise UnsupportedError(f"{checkpoint.adapter.architecture} does not continue texts")
        return TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=self._cache_dtype)

    def _reference(self, checkpoint: Checkpoint, decoder: TorchDecoder) -> Reference:
        return Reference(checkpoint, lambda feed: decoder(**feed))

    def _empty(self, text: Continuation) -> Arrays:
        adapter = self.folder.checkpoint.adapter
        if not isinstance(adapter, GenerativeAdapter):
            raise UnsupportedError(f"{adapter.architecture} does not continue texts")
        tensors = adapter.cache.empty(len(text.rows), dtype=self._cache_dtype)
        names = [name for name in adapter.input_names if name.startswith("past_key_values.")]
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}


def _context(bundle: Path) -> int:
    generation = read_manifest(bundle).generation
    if generation is None:
        raise UnsupportedError(f"bundle {bundle} makes no text, though its checkpoint does; compile it again")
    return generation.context


def _scored(texts: Sequence[Continuation]) -> list[Arrays]:
    return [text.scored for text in texts]


def _steps(mine: Arrays, theirs: Arrays) -> tuple[Arrays, Arrays]:
    """Cuts both to the steps that both have."""
    count = min(mine["logits"].shape[1], theirs["logits"].shape[1])
    return {"logits": mine["logits"][:, :count]}, {"logits": theirs["logits"][:, :count]}
