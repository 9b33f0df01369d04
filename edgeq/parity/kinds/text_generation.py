"""Models that generate text: what the reference generated, through every stage token by token."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeq.backends import Arrays
from edgeq.errors import UnsupportedError
from edgeq.parity.kinds.base import ComparedRun, ParityRun
from edgeq.parity.reference import Reference
from edgeq.parity.rules.bit_identical import check_bits
from edgeq.parity.rules.chosen_tokens import RUNS, Choices, ClearChoices, check_free_running, check_steps
from edgeq.parity.rules.end_to_end import Distance, check_end_to_end, distance, float_error, noise_runs
from edgeq.progress import Progress
from edgeq.targets.runtime.manifest import read_manifest

EMULATED_TOKENS = 32
LOGITS, STATES = "logits", "last_hidden_state"
_STEPS_WITHOUT_CACHE = 6


class GeneratedText(Protocol):
    """A batch of texts that the reference generated: all get the same number of new tokens."""

    @property
    def new(self) -> int:
        """Number of tokens that were generated for each text."""

    @property
    def generated(self) -> np.ndarray:
        """Those tokens, int64 ``[batch, new]``."""

    @property
    def one_by_one(self) -> Sequence[GeneratedText]:
        """The same texts, each a batch of its own."""

    def in_bundle(self, bundle: Any) -> Arrays:
        """Runs a loaded bundle token by token: ``logits`` float32 ``[batch, new, vocabulary]``, and more."""

    def in_bundle_without_cache(self, bundle: Any, steps: Sequence[int]) -> Arrays:
        """Runs a bundle from the start of the texts for each of some steps: ``logits`` ``[batch, steps, ...]``."""

    def free_running(self, bundle: Any) -> np.ndarray:
        """Lets a bundle generate greedily on its own: int64 ``[batch, new]``."""


@dataclasses.dataclass(frozen=True)
class _NoiseRun:
    """What is kept of a noise run: all logits would fill the memory."""

    whole: Distance
    beginning: Distance
    states: Distance | None
    moved: list[np.ndarray]


class TextGenerationParity(ParityRun):
    """Parity of a model that generates text.

    A subclass sets ``reference`` and ``texts``. Outputs are ``logits``, one row a new token, and for a model that
    has an encoder the states of it, zero where its input is padded.
    """

    texts: Sequence[GeneratedText]
    reference: Reference

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        super().__init__(folder, progress)
        self.noisy: list[_NoiseRun] = []

    def measure_reference(self) -> None:
        """See :meth:`ParityRun.measure_reference`."""
        self.want = self.run_reference(self.reference)
        self.choices = Choices.of(self.want)
        self.noisy = noise_runs(
            self._noise_run,
            lambda run: [found.rms for found in (run.whole, run.states) if found is not None],
            quantized_values=self.count_quantized(),
            fewest=RUNS,
        )
        self.clear = ClearChoices.under(self.choices, [run.moved for run in self.noisy])

    @abc.abstractmethod
    def count_quantized(self) -> int:
        """Counts the values that one run of the reference rounds to int8."""

    def source_masks(self) -> list[Arrays]:
        """Says which tokens of each encoder input count; empty for a model without an encoder."""
        return []

    def results(self, outputs: list[Arrays]) -> list[Arrays]:
        """See :meth:`ParityRun.results`."""
        return [{LOGITS: each[LOGITS]} for each in outputs]

    def scored(self) -> list[Arrays]:
        """See :meth:`ParityRun.scored`."""
        return self._scored(self.texts[0].new)

    def compare(self, stage: str, got: list[Arrays]) -> None:
        """Compares a stage with PyTorch at the steps it was run on: all of them, or the first of each text."""
        steps = max(outputs[LOGITS].shape[1] for outputs in got)
        is_whole = steps == max(text.new for text in self.texts)
        want = _beginnings(self.results(self.want), steps)
        if STATES in got[0]:
            found = distance(_states(got), _states(self.want), self.source_masks())
            envelope = [run.states for run in self.noisy if run.states is not None]
            floor = float_error(self.want[0][STATES].shape[-1], float(self.want[0][STATES].std()))
            self.checks.append(check_end_to_end(f"{stage} encoder", found, envelope, floor=floor))
        found = distance(self.results(got), want, self._scored(steps))
        envelope = [run.whole if is_whole else run.beginning for run in self.noisy]
        self.checks.append(check_end_to_end(stage, found, envelope))
        self.checks.append(check_steps(stage, got, self.clear))

    def run_native(self, stage: str, bundle: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_native`."""
        access = self.folder.access
        two, one = access.load(bundle, threads=2), access.load(bundle, threads=1, verify=False)
        got = [text.in_bundle(two) for text in self.texts]
        single = [text.in_bundle(one) for text in self.texts]
        self.checks.append(check_bits(f"{stage}, 1 thread", single, got, against="2 threads"))
        alone = [_stacked([each.in_bundle(two) for each in text.one_by_one]) for text in self.texts]
        self.checks.append(check_bits(f"{stage}, text by text", alone, got, against="the whole batch"))
        again, want = [], []
        for text, outputs in zip(self.texts, got, strict=True):
            steps = np.unique(np.linspace(0, text.new - 1, _STEPS_WITHOUT_CACHE).astype(int)).tolist()
            again.append(text.in_bundle_without_cache(two, steps))
            want.append({LOGITS: outputs[LOGITS][:, steps]})
        self.checks.append(check_bits(f"{stage}, without cache", again, want, against="step by step"))
        generated = [text.free_running(two) for text in self.texts]
        reference = [text.generated for text in self.texts]
        self.checks.append(check_free_running(f"{stage}, free-running", generated, reference, self.clear))
        return got

    def shared(self, mine: list[Arrays], theirs: list[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
        """See :meth:`ParityRun.shared`."""
        steps = [min(a[LOGITS].shape[1], b[LOGITS].shape[1]) for a, b in zip(mine, theirs, strict=True)]
        cut = [
            [{**each, LOGITS: each[LOGITS][:, :count]} for each, count in zip(side, steps, strict=True)]
            for side in (mine, theirs)
        ]
        return cut[0], cut[1]

    def longest(self) -> int:
        """Returns the most tokens of a sequence that the model and all bundles hold."""
        return min([self.folder.checkpoint.adapter.max_positions, *map(_context, self.bundles)])

    def _scored(self, steps: int) -> list[Arrays]:
        return [
            {"attention_mask": np.ones((len(text.generated), min(steps, text.new)), np.int64)} for text in self.texts
        ]

    def _noise_run(self, seed: int) -> _NoiseRun:
        got = self.run_reference(self.reference, seed=seed)
        logits, want = self.results(got), self.results(self.want)
        states = None
        if STATES in got[0]:
            states = distance(_states(got), _states(self.want), self.source_masks())
        return _NoiseRun(
            distance(logits, want, self.scored()),
            distance(
                _beginnings(logits, EMULATED_TOKENS),
                _beginnings(want, EMULATED_TOKENS),
                self._scored(EMULATED_TOKENS),
            ),
            states,
            self.choices.moved(got),
        )


def _beginnings(outputs: list[Arrays], steps: int) -> list[Arrays]:
    return [{LOGITS: each[LOGITS][:, :steps]} for each in outputs]


def _states(outputs: list[Arrays]) -> list[Arrays]:
    return [{STATES: each[STATES]} for each in outputs]


def _stacked(singles: Sequence[Arrays]) -> Arrays:
    """Puts the outputs of single texts into one batch; what is shorter than the longest is filled with zeros."""
    stacked: Arrays = {}
    for name in singles[0]:
        length = max(single[name].shape[1] for single in singles)
        fill = [[(0, 0), (0, length - single[name].shape[1]), (0, 0)] for single in singles]
        stacked[name] = np.concatenate([np.pad(s[name], p) for s, p in zip(singles, fill, strict=True)])
    return stacked


def _context(bundle: Path) -> int:
    generation = read_manifest(bundle).generation
    if generation is None:
        raise UnsupportedError(f"bundle {bundle} does not generate text, but its checkpoint does; compile it again")
    return generation.context
