"""What a graph is traced with: example inputs, and the names of the dimensions that may vary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgeq.formats.tasks import EVERY_TOKEN, TASKS, WHOLE_TEXT
from edgeq.models import ModelAdapter
from edgeq.models.adapter import CacheShape, ExportPart, GenerativeAdapter, Seq2SeqAdapter
from edgeq.models.sentence import EMBEDDING

TRACED_LENGTH = 7
"""Neither 0 nor 1, which torch would take for fixed sizes; the graph holds for every size."""

# Each another number, so that the tracer cannot take one dimension for another.
_SIZES = {
    "batch": 2,
    "batch_size": 2,
    "encoder_sequence_length": 5,
    "past_sequence_length": 3,
    "past_decoder_sequence_length": 3,
}
_PLUS = " + "

Dimensions = tuple[str | int, ...]
"""A shape; sizes that may vary have a name, which may be a sum of two."""
Layout = Callable[[str], Dimensions]
"""Returns the shape of an input by its name, or the leading dimensions of an output."""


@dataclasses.dataclass(frozen=True)
class GraphSignature:
    """Inputs and outputs of one graph.

    Attributes:
        example: The arguments to trace with; the cache is one argument, a list of tensors.
        inputs: Shape by input name, in the order of the flattened arguments.
        outputs: Leading dimensions by output name.
    """

    example: tuple[torch.Tensor | list[torch.Tensor], ...]
    inputs: dict[str, Dimensions]
    outputs: dict[str, Dimensions]

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The dimensions of the inputs, nested as the arguments are, with names that torch accepts."""
        shapes = (_symbols(shape) for shape in self.inputs.values())
        return tuple(
            [next(shapes) for _ in argument] if isinstance(argument, list) else next(shapes)
            for argument in self.example
        )


def signature_of(part: ExportPart, adapter: ModelAdapter, *, cache_dtype: torch.dtype) -> GraphSignature:
    """Describes a graph of a model.

    Args:
        part: The graph.
        adapter: The adapter of the model.
        cache_dtype: Type of the key/value cache of a model that has one.
    """
    layout = _layout(part, adapter)
    sizes = {name: min(TRACED_LENGTH, adapter.max_positions) for name in ("sequence", "sequence_length")}
    sizes |= {"decoder_sequence_length": sizes["sequence"], **_SIZES}
    inputs = {name: layout(name) for name in part.input_names}
    tensors = {name: _example(name, shape, sizes, cache_dtype) for name, shape in inputs.items()}
    example: list[Any] = [tensor for name, tensor in tensors.items() if not _is_cache(name)]
    if cache := [tensor for name, tensor in tensors.items() if _is_cache(name)]:
        example.append(cache)
    return GraphSignature(tuple(example), inputs, {name: layout(name) for name in part.output_names})


def _layout(part: ExportPart, adapter: ModelAdapter) -> Layout:
    if isinstance(adapter, GenerativeAdapter):
        return _decoder_only(adapter.cache)
    if not isinstance(adapter, Seq2SeqAdapter):
        outputs = {EMBEDDING: WHOLE_TEXT, **TASKS[adapter.task].outputs}
        return lambda name: outputs.get(name, EVERY_TOKEN)
    if "encoder_attention_mask" not in part.input_names:
        return lambda _: ("batch_size", "encoder_sequence_length")
    return _decoder_after_encoder(adapter.cache, part.input_names)


def _decoder_only(cache: CacheShape) -> Layout:
    past, new = "past_sequence_length", "sequence_length"

    def shape(name: str) -> Dimensions:
        if name.startswith(("past_key_values.", "present.")):
            length = past if _is_cache(name) else past + _PLUS + new
            return ("batch_size", cache.heads, length, _columns(name, cache))
        return ("batch_size", past + _PLUS + new if name == "attention_mask" else new)

    return shape


def _decoder_after_encoder(cache: CacheShape, input_names: Sequence[str]) -> Layout:
    past, new, source = "past_decoder_sequence_length", "decoder_sequence_length", "encoder_sequence_length"
    present = past + _PLUS + new if any(_is_cache(name) for name in input_names) else new

    def shape(name: str) -> Dimensions:
        if name.startswith(("past_key_values.", "present.")):
            own = past if _is_cache(name) else present
            return ("batch_size", cache.heads, source if ".encoder." in name else own, _columns(name, cache))
        if name == "encoder_hidden_states":
            return ("batch_size", source, cache.heads * cache.head_size)
        return ("batch_size", source if name == "encoder_attention_mask" else new)

    return shape


def _is_cache(name: str) -> bool:
    return name.startswith("past_key_values.")


def _columns(name: str, cache: CacheShape) -> int:
    return 1 if _is_scale(name) else cache.head_size


def _is_scale(name: str) -> bool:
    return name.endswith("_scale")


def _example(name: str, shape: Dimensions, sizes: dict[str, int], cache_dtype: torch.dtype) -> torch.Tensor:
    if name == "encoder_hidden_states" or _is_scale(name):
        dtype = torch.float32
    else:
        dtype = cache_dtype if _is_cache(name) else torch.int64
    numbers = [size if isinstance(size, int) else sum(sizes[n] for n in size.split(_PLUS)) for size in shape]
    return torch.ones(numbers, dtype=dtype)


def _symbols(shape: Dimensions) -> dict[int, str]:
    """Torch wants identifiers where ONNX takes any text."""
    return {axis: size.replace(_PLUS, "_and_") for axis, size in enumerate(shape) if isinstance(size, str)}
