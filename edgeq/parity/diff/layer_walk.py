"""Walks the layers of a graph in order and finds the first that leaves its envelope.

Each layer is judged twice, as is what lies before it:

* *isolated*, on the reference's own input, as rule (a) has it: a low-bit operator within the bound that
  :mod:`edgeq.parity.rules.isolated` derives; anything else within ``(terms + 3) 2**-24`` of the largest value, where
  ``terms`` is the length of the longest sum;
* *accumulated*, in the run of the whole graph: within twice what noise of one ulp in front of every quantizer makes of
  the reference there. A step that noise shows in one layer may show in a backend in any, so for a model that
  quantizes activations the widest relative envelope of all layers counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from edgeq.backends import Arrays, Backend
from edgeq.parity.diff.graph_layers import Layer, cut, given, layers_of, tapped
from edgeq.parity.reference import Call, RecordedLayer, Reference
from edgeq.parity.rules.end_to_end import FACTOR, Distance, distance, float_error, noise_runs
from edgeq.parity.rules.isolated import Case, allowed
from edgeq.parity.rules.isolated_attention import allowed_attention
from edgeq.results import Step
from edgeq.results.diff import Part

_MOST_NOISE_RUNS = 64
"""A search for a fault is not stopped by an envelope that is too wide, and should not keep someone waiting."""

Opener = Callable[[onnx.ModelProto], Backend]
"""Opens a graph in some backend, which is then given arrays that the graph may not take."""


class LayerWalk:
    """The layers of one graph, with what the reference gave them, clean and under noise.

    Args:
        model: The exported graph, with its weights.
        reference: The reference; it must compute what the graph does.
        feed: Inputs of the reference.
        graph_feed: Inputs of the graph, those of ``feed`` if left out.
    """

    def __init__(
        self, model: onnx.ModelProto, reference: Reference, feed: Arrays, *, graph_feed: Arrays | None = None
    ) -> None:
        self._model = model
        self._feed = feed if graph_feed is None else graph_feed
        self._mask = feed["attention_mask"]
        calls = reference.calls(feed)
        self.layers = layers_of(model.graph, calls)
        self._low_bit = reference.record(feed)
        self._attention = reference.record_attention(feed)
        self.values = self._values_of(calls)
        noisy = noise_runs(
            lambda seed: self._distances(self._values_of(reference.calls(feed, seed=seed))),
            lambda moved: [moved[self.layers[-1].output].rms],
            quantized_values=self._count_quantized(),
            most=_MOST_NOISE_RUNS,
        )
        self._limits = self._make_limits(noisy)

    def run(self, open_in: Opener) -> list[Step]:
        """Opens the whole graph, and the graph in pieces, in a backend, runs both, and judges every layer."""
        batch, tokens = self._mask.shape
        shown = tapped(self._model, self.values, batch=batch, tokens=tokens)
        apart = cut(self._model, self.values, batch=batch, tokens=tokens)
        whole, pieces = open_in(shown)(self._feed), open_in(apart)({**self._feed, **given(self.values)})
        return [
            step
            for layer in self.layers
            for step in ([self._before(layer, whole, pieces)] if layer.between else [])
            + [self._itself(layer, whole, pieces)]
        ]

    def _values_of(self, calls: Mapping[str, Call]) -> Arrays:
        values: Arrays = {}
        for layer in self.layers:
            if layer.value:
                values[layer.value] = calls[layer.name].value
            values[layer.output] = calls[layer.name].output
        return values

    def _before(self, layer: Layer, whole: Arrays, pieces: Arrays) -> Step:
        want = self.values[layer.value]
        # Attention sums over heads and over tokens.
        bound = float_error(want.shape[-1] + self._mask.shape[1], float(np.abs(want).max()))
        error = self._error(pieces[layer.value], want, np.full(want.shape, bound))
        return self._step(layer, "before", layer.between, layer.value, error, whole)

    def _itself(self, layer: Layer, whole: Arrays, pieces: Arrays) -> Step:
        want, bound = self.values[layer.output], None
        recorded = self._low_bit.get(layer.name)
        if recorded is not None:
            want, bound = _exact(recorded)
        elif layer.name in self._attention:
            limit = allowed_attention(self._attention[layer.name])
            want, bound = limit.exact, limit.bound
        if bound is None:
            bound = np.full(want.shape, float_error(self._terms(layer), float(np.abs(want).max())))
        error = self._error(pieces[layer.output], want, bound)
        return self._step(layer, "layer", (layer.node.op_type,), layer.output, error, whole)

    def _step(
        self, layer: Layer, part: Part, operators: tuple[str, ...], tensor: str, error: float, whole: Arrays
    ) -> Step:
        want = self.values[tensor]
        moved = self._distance(whole[tensor], want).rms / _size(want)
        return Step(layer.name, part, operators, error if np.isfinite(error) else None, moved, self._limits[tensor])

    def _error(self, got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> float:
        want, bound = _last_token(got, want), _last_token(got, bound)
        if got.shape != want.shape:
            return np.inf
        error = np.abs(got.astype(np.float64) - want)
        share = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
        share = np.where(np.isfinite(got), share, np.inf)
        return float(share[self._mask == 1].max() if share.shape[:2] == self._mask.shape else share.max())

    def _distance(self, got: np.ndarray, want: np.ndarray) -> Distance:
        want = _last_token(got, want)
        if got.shape != want.shape:
            return Distance(np.inf, np.inf, np.inf)
        return distance([{"": got}], [{"": want}], [{"attention_mask": self._mask}])

    def _distances(self, values: Arrays) -> dict[str, Distance]:
        return {name: self._distance(value, self.values[name]) for name, value in values.items()}

    def _make_limits(self, noisy: Sequence[Mapping[str, Distance]]) -> dict[str, float]:
        """Largest relative difference for each tensor."""
        widths = {name: int(value.shape[-1]) for name, value in self.values.items()}
        widths |= {layer.output: self._terms(layer) for layer in self.layers}
        relative = {
            name: FACTOR * max(run[name].rms for run in noisy) / _size(value) for name, value in self.values.items()
        }
        widest = max(relative.values()) if self._count_quantized() else 0.0
        floors = {name: float_error(width, 1.0) for name, width in widths.items()}
        return {name: max(relative[name], widest, floors[name]) for name in relative}

    def _terms(self, layer: Layer) -> int:
        return max(layer.width, int(self.values[layer.output].shape[-1]))

    def _count_quantized(self) -> int:
        layers = self._low_bit.values()
        of_attention = sum(value.size for one in self._attention.values() for value in one.inputs[:3])
        return sum(layer.value.size for layer in layers if layer.format.activation != "none") + of_attention


def _exact(layer: RecordedLayer) -> tuple[np.ndarray, np.ndarray]:
    """The exact result of a low-bit layer on its own input, and its bound, in the shape of its output."""
    shape = layer.output.shape
    width = () if layer.kind == "LowBitEmbedding" else layer.value.shape[-1:]
    value = layer.value.reshape(1, -1, *width)
    limit = allowed(Case(0, layer, value, layer.output.reshape(1, -1, shape[-1])))
    return limit.exact.reshape(shape), limit.bound.reshape(shape)


def _last_token(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Compiled decoders compute logits for the last token of each text only."""
    return want[:, -1] if got.ndim == want.ndim - 1 else want


def _size(value: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))), 1e-30)
