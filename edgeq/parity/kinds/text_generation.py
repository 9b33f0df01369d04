"""Models that generate text: what the reference generated, through every stage token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeq.backends import Arrays
from edgeq.errors import UnsupportedError
from edgeq.parity.kinds.base import ParityRun
from edgeq.parity.rules.rule import Again, BundleOutputs, Outputs, Part
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


class TextGenerationParity(ParityRun):
    """Parity of a model that generates text.

    A subclass sets ``texts``. Outputs are ``logits``, one row a new token, and for a model that
    has an encoder the states of it, zero where its input is padded.
    """

    texts: Sequence[GeneratedText]

    def source_masks(self) -> list[Arrays]:
        """Says which tokens of each encoder input count; empty for a model without an encoder."""
        return []

    def judged(self, outputs: list[Arrays]) -> Outputs:
        """See :meth:`ParityRun.judged`."""
        parts = {}
        if STATES in outputs[0]:
            parts["encoder"] = Part([{STATES: each[STATES]} for each in outputs], self.source_masks())
        logits = [{LOGITS: each[LOGITS]} for each in outputs]
        every = [{"attention_mask": np.ones(each[LOGITS].shape[:2], np.int64)} for each in logits]
        return Outputs({**parts, "": Part(logits, every)}, generates=True)

    def beginning(self, outputs: list[Arrays]) -> list[Arrays]:
        """See :meth:`ParityRun.beginning`."""
        return [{**each, LOGITS: each[LOGITS][:, :EMULATED_TOKENS]} for each in outputs]

    def run_native(self, stage: str, bundle: Path) -> tuple[list[Arrays], BundleOutputs]:
        """See :meth:`ParityRun.run_native`."""
        access = self.folder.access
        two, one = access.load(bundle, threads=2), access.load(bundle, threads=1, verify=False)
        got = [text.in_bundle(two) for text in self.texts]
        single = [text.in_bundle(one) for text in self.texts]
        alone = [_stacked([each.in_bundle(two) for each in text.one_by_one]) for text in self.texts]
        again, want = [], []
        for text, outputs in zip(self.texts, got, strict=True):
            steps = np.unique(np.linspace(0, text.new - 1, _STEPS_WITHOUT_CACHE).astype(int)).tolist()
            again.append(text.in_bundle_without_cache(two, steps))
            want.append({LOGITS: outputs[LOGITS][:, steps]})
        ways = [
            Again("1 thread", single, got, against="2 threads"),
            Again("text by text", alone, got, against="the whole batch"),
            Again("without cache", again, want, against="step by step"),
        ]
        generated, reference = [text.free_running(two) for text in self.texts], [text.generated for text in self.texts]
        return got, BundleOutputs(stage, ways, generated, reference)

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
