"""What a profile times: one call on texts, or for a decoder one step with the earlier tokens in the cache.

The decoder of an encoder-decoder makes its step with an encoder input in the caches that is as long as the decoder
input so far. The encoder is a call of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.kernel_times import KernelTime
from edgeq.targets.runtime.loader import Bundle
from edgeq.targets.runtime.names import ENCODE
from edgeq.targets.runtime.schema import Manifest
from edgeq.targets.runtime.state import State

_PAST = "past_key_values."
_ONNX_TYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int8)": np.int8}
_SEQUENCE = 128
"""Tokens of a text, unless the model takes fewer or the user says otherwise."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One call, the same for the bundle and the baselines.

    Attributes:
        inputs: What the bundle takes.
        state: Caches of the bundle; None for models that generate no text. They hold zeros.
        sequence: Tokens of each text, or in the cache before the step.
        source: Tokens of each source of an encoder-decoder; 0 for other models.
        reading: Whether the call is the encoder's.
    """

    inputs: dict[str, np.ndarray]
    state: State | None
    sequence: int
    source: int = 0
    reading: bool = False

    @property
    def is_step(self) -> bool:
        """Whether the call is a decoder's step."""
        return self.state is not None and not self.reading

    def run(self, bundle: Bundle) -> dict[str, np.ndarray]:
        """Makes the call."""
        if self.reading and self.state is not None:
            return bundle.encode_source(self.inputs, state=self.state)
        return bundle.run(self.inputs, state=self.state)

    def time_kernels(self, bundle: Bundle) -> list[KernelTime]:
        """Makes the call and returns the time of each kernel."""
        if self.reading and self.state is not None:
            return bundle.time_source_kernels(self.inputs, state=self.state)
        return bundle.time_kernels(self.inputs, state=self.state)

    def onnx_inputs(self, entries: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns the same call for the exported graph.

        Args:
            entries: The graph's inputs: ``onnxruntime.NodeArg``.
        """
        return {entry.name: self._onnx_input(entry) for entry in entries}

    def _onnx_input(self, entry: Any) -> np.ndarray:
        if entry.name in self.inputs:
            return self.inputs[entry.name]
        batch = self.inputs["input_ids"].shape[0]
        if entry.name.startswith(_PAST):
            _, heads, _, size = entry.shape
            tokens = self.source if ".encoder." in entry.name else self.sequence
            return np.zeros((batch, heads, tokens, size), _ONNX_TYPES[entry.type])
        if entry.name == "position_ids":
            return np.full((batch, 1), self.sequence, np.int64)
        if entry.name == "encoder_attention_mask":
            return np.ones((batch, self.source), np.int64)
        return np.ones((batch, self.sequence + 1), np.int64)


@dataclasses.dataclass(frozen=True)
class Texts:
    """Random inputs of one call: the same for the bundle and the baselines, and on every machine.

    Attributes:
        inputs: Arrays by the name of the model's inputs.
        sequence: As in :class:`Workload`.
        source: As in :class:`Workload`.
        reading: As in :class:`Workload`.
    """

    inputs: dict[str, np.ndarray]
    sequence: int
    source: int = 0
    reading: bool = False


def fitting_sequence(manifest: Manifest, wanted: int | None, *, reading: bool) -> int:
    """Returns the tokens of a text to measure with: what is asked for, or else 128 or as many as the model takes.

    Args:
        manifest: The bundle's manifest.
        wanted: What the user said, or None.
        reading: Whether sources of an encoder-decoder are read.

    Raises:
        UsageError: If it is not positive.
    """
    if wanted is not None:
        if wanted < 1:
            raise UsageError(f"--sequence must be at least 1, found {wanted}")
        return wanted
    generation = manifest.generation
    longest = manifest.model.max_length
    if generation is not None and reading and generation.source is not None:
        longest = generation.source.context
    elif generation is not None and longest is not None:
        longest -= 1  # the token of the step that is timed
    return _SEQUENCE if longest is None else max(1, min(_SEQUENCE, longest))


def make_reading(bundle: Bundle, *, batch: int, sequence: int) -> Workload:
    """Makes a call of the encoder on random ids; the same at every call.

    Args:
        bundle: The bundle that will be timed.
        batch: Sources in a call.
        sequence: Tokens in each source.

    Raises:
        UsageError: If the model reads no sources, or none of that length.
    """
    texts = made_up_sources(bundle.manifest, bundle.path, batch=batch, sequence=sequence)
    return Workload(texts.inputs, bundle.new_state(batch), sequence, source=sequence, reading=True)


def make_workload(bundle: Bundle, *, batch: int, sequence: int) -> Workload:
    """Makes random ids below every input's limit, full-length texts of one segment; the same at every call.

    Args:
        bundle: The bundle that will be timed.
        batch: Texts in a call.
        sequence: Tokens in each text; for a decoder those that are in the cache before the token of the step.

    Raises:
        UsageError: If the model takes no texts of that length.
    """
    texts = made_up_texts(bundle.manifest, bundle.path, batch=batch, sequence=sequence)
    state = bundle.new_state(batch) if bundle.manifest.generation is not None else None
    return Workload(texts.inputs, state, sequence, texts.source)


def made_up_sources(manifest: Manifest, folder: Path, *, batch: int, sequence: int) -> Texts:
    """Makes what :func:`make_reading` reads, from the manifest alone; ``folder`` is for messages."""
    source = manifest.generation.source if manifest.generation is not None else None
    if source is None:
        raise UsageError(f"bundle {folder} has no encoder input; leave --reading out")
    if sequence > source.context:
        raise UsageError(
            f"--sequence must be at most {source.context} for encoder inputs of {folder}, found {sequence}"
        )
    limit = (manifest.functions[ENCODE].inputs[0].maximum or 0) + 1
    ids = np.random.default_rng(0).integers(0, limit, (batch, sequence), dtype=np.int64)
    lengths = np.full(batch, sequence, np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "source_lengths": lengths}
    return Texts(inputs, sequence, source=sequence, reading=True)


def made_up_texts(manifest: Manifest, folder: Path, *, batch: int, sequence: int) -> Texts:
    """Makes what :func:`make_workload` runs, from the manifest alone; ``folder`` is for messages."""
    generation = manifest.generation
    source = min(sequence, generation.source.context) if generation is not None and generation.source else 0
    longest = manifest.model.max_length
    if longest is not None and sequence > longest - (generation is not None):
        raise UsageError(
            f"--sequence must be at most {longest - (generation is not None)} for {folder}, found {sequence}"
        )
    generator = np.random.default_rng(0)
    inputs = {}
    for spec in manifest.inputs:
        shape = (batch,) if len(spec.shape) == 1 else (batch, 1 if generation is not None else sequence)
        if spec.name == "input_ids":
            limit = 1000 if spec.maximum is None else spec.maximum + 1
            inputs[spec.name] = generator.integers(0, limit, shape, dtype=np.int64)
        elif spec.name == "past_lengths":
            inputs[spec.name] = np.full(shape, sequence, np.int64)
        elif spec.name == "source_lengths":
            inputs[spec.name] = np.full(shape, source, np.int64)
        else:
            filled = spec.name in ("attention_mask", "new_lengths")
            inputs[spec.name] = np.full(shape, int(filled), np.int64)
    return Texts(inputs, sequence, source)
