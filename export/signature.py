"""What a module is traced with: example inputs, and which of their dimensions may vary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edgeq.models import GenerativeAdapter, ModelAdapter

TRACED_BATCH = 2
TRACED_LENGTH = 7
"""Neither 0 nor 1, which torch would take for fixed sizes; the graph holds for every size."""
TRACED_PAST = 3
"""Another number than the length, so that the tracer cannot take one for the other."""

Dimensions = Mapping[int, str]
"""Names of the dimensions that may vary, by axis."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one graph.

    Attributes:
        example: The arguments to trace with; a list is one argument that holds several inputs.
        inputs: The dimensions that may vary, by input name, in the order of the flattened arguments.
        outputs: The same for the outputs.
    """

    example: tuple[torch.Tensor | list[torch.Tensor], ...]
    inputs: dict[str, Dimensions]
    outputs: dict[str, Dimensions]

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The dimensions of the inputs, nested as the arguments are, with names that torch accepts."""
        names = iter(self.inputs.values())
        return tuple(
            [_symbols(next(names)) for _ in argument] if isinstance(argument, list) else _symbols(next(names))
            for argument in self.example
        )


def signature_of(adapter: ModelAdapter, *, cache_dtype: torch.dtype) -> Signature:
    """Describes the module that ``adapter.export_module`` returns.

    Args:
        adapter: The adapter of the model.
        cache_dtype: Type of the key/value cache of a model that has one.
    """
    if isinstance(adapter, GenerativeAdapter):
        return _decoder(adapter, cache_dtype)
    sizes = {0: "batch", 1: "sequence"}
    length = min(TRACED_LENGTH, adapter.max_positions)
    tokens = tuple(_tokens(length) for _ in adapter.input_names)
    return Signature(tokens, _all(adapter.input_names, sizes), _all(adapter.output_names, sizes))


def _decoder(adapter: GenerativeAdapter, cache_dtype: torch.dtype) -> Signature:
    """Dimensions have the names that optimum gives them."""
    past, length = TRACED_PAST, TRACED_LENGTH
    batch, present, old = "batch_size", "sequence_length", "past_sequence_length"
    together = f"{old} + {present}"
    new_tokens = {0: batch, 1: present}
    shape = (TRACED_BATCH, adapter.cache.heads, past, adapter.cache.head_size)
    cache = [torch.zeros(shape, dtype=cache_dtype) for _ in range(2 * adapter.cache.layers)]
    # Positions 0, because a model may have fewer than the traced length.
    example = (_tokens(length), _tokens(past + length), torch.zeros_like(_tokens(length)), cache)
    ids, mask, positions, *cache_names = adapter.input_names
    logits, *present_names = adapter.output_names
    inputs = {ids: new_tokens, mask: {0: batch, 1: together}, positions: new_tokens}
    outputs = {logits: new_tokens}
    return Signature(
        example,
        {**inputs, **_all(cache_names, {0: batch, 2: old})},
        {**outputs, **_all(present_names, {0: batch, 2: together})},
    )


def _tokens(length: int) -> torch.Tensor:
    return torch.ones(TRACED_BATCH, length, dtype=torch.int64)


def _all(names: Sequence[str], dimensions: Dimensions) -> dict[str, Dimensions]:
    return dict.fromkeys(names, dimensions)


def _symbols(dimensions: Dimensions) -> dict[int, str]:
    """Torch wants identifiers where ONNX takes any text."""
    return {axis: name.replace(" + ", "_and_") for axis, name in dimensions.items()}
