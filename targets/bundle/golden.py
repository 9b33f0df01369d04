"""Golden runs: the small batch that every bundle carries with the output it must give on any device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from edgeq.arrays import Backend
from edgeq.formats.tasks import GENERATING
from edgeq.targets.runtime.inputs import SEQUENCE
from edgeq.targets.runtime.names import ENCODE, MAIN
from edgeq.targets.runtime.schema import DECODER_INPUTS, ModelInfo, TensorSpec

BATCH = 2
_SEQUENCE = 9
"""Odd, and no multiple of a register, so that the tails of kernels run too."""
_PROMPT = 13
_STEPS = 6
"""A decoder's longer prompt grows from one vector of keys into the next."""
_SEED = 20240229

@dataclasses.dataclass(frozen=True)
class GoldenRun:
    """Inputs of one call of a function and what it gives for them, by name."""

    function: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def golden_source(specs: tuple[TensorSpec, ...], model: ModelInfo, *, context: int, encode: Backend) -> GoldenRun:
    """Makes the golden run of an encoder: encoder inputs of two lengths.

    Args:
        specs: Inputs of ``encode``.
        model: The model.
        context: Most tokens of an encoder input.
        encode: The encoder on this machine, filling caches for :data:`BATCH` encoder inputs.
    """
    inputs = golden_inputs(specs, dataclasses.replace(model, max_length=context))
    inputs["source_lengths"] = inputs["attention_mask"].sum(axis=1)
    return GoldenRun(ENCODE, inputs, encode(inputs))


def golden_runs(
    specs: tuple[TensorSpec, ...], model: ModelInfo, *, run: Backend, source: GoldenRun | None = None
) -> list[GoldenRun]:
    """Makes the golden runs: one, or for a decoder prompts of two lengths and then greedy steps.

    Args:
        specs: The model's inputs.
        model: Gives task and longest sequence.
        run: The model on this machine. A decoder keeps its caches from call to call; they are empty, for :data:`BATCH`
            sequences.
        source: What the encoder of an encoder-decoder has read.
    """
    inputs = golden_inputs(specs, model)
    of_source = {} if source is None else {"source_lengths": source.inputs["source_lengths"]}
    inputs |= of_source
    runs = [GoldenRun(MAIN, inputs, run(inputs))]
    if model.task not in GENERATING:
        return runs
    lengths = inputs["new_lengths"]
    steps = min(_STEPS, (model.max_length or _STEPS) - int(lengths.max()))
    for step in range(steps):
        (logits,) = runs[-1].outputs.values()
        most_likely = np.argmax(logits, axis=1).astype(np.int64)
        arrays = (most_likely[:, None], lengths + step, np.ones_like(lengths))
        following = dict(zip(DECODER_INPUTS, arrays, strict=True)) | of_source
        runs.append(GoldenRun(MAIN, following, run(following)))
    return runs


def golden_inputs(specs: tuple[TensorSpec, ...], model: ModelInfo) -> dict[str, np.ndarray]:
    """Makes the golden inputs: the same ones for the same model, whatever the target.

    Ids are spread over their range, masks end earlier in each row (padding), floats are normal.

    Args:
        specs: The model's inputs.
        model: Gives the longest sequence.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    wanted = _PROMPT if model.task in GENERATING else _SEQUENCE
    sequence = min(wanted, model.max_length or wanted)
    arrays: dict[str, np.ndarray] = {}
    for spec in specs:
        shape = tuple(
            size if isinstance(size, int) else sequence if size == SEQUENCE else BATCH for size in spec.shape
        )
        arrays[spec.name] = _values(spec, shape, generator)
    if "past_lengths" in arrays:
        arrays["past_lengths"] = np.zeros(BATCH, np.int64)
        arrays["new_lengths"] = np.maximum(sequence - 4 * np.arange(BATCH), 1)
    return arrays


def _values(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if spec.name == "attention_mask" and len(shape) == 2:
        lengths = np.maximum(shape[1] - 3 * np.arange(shape[0]), 1)
        return (np.arange(shape[1]) < lengths[:, None]).astype(dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    low = 0 if spec.minimum is None else spec.minimum
    high = low + 1 if spec.maximum is None else spec.maximum
    values = generator.integers(low, high, size=shape, endpoint=True).astype(dtype)
    values.flat[0], values.flat[-1] = high, low
    return values
