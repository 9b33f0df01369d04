"""What the runtimes are told of a model's inputs and outputs: sizes, and the values that compiled code may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeq.errors import UnsupportedError
from edgeq.targets.runtime.schema import ModelInfo, TensorSpec
from edgeq.targets.runtime.text_info import POOLING_MASK

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import TensorInfo

_DEFAULTS = {"attention_mask": 1, POOLING_MASK: 1, "token_type_ids": 0, "past_lengths": 0}
"""What an input is that a caller leaves out; transformers fills in the first two."""
_MASKS = ("attention_mask", POOLING_MASK)
_LENGTHS = ("past_lengths", "new_lengths")
_SOURCE_LENGTHS = "source_lengths"
_ID_LIMITS = {"input_ids": "vocab_size", "token_type_ids": "type_vocab_size"}


def input_specs(
    infos: Sequence[TensorInfo], config: Mapping[str, Any], *, model: ModelInfo, source_context: int | None = None
) -> tuple[TensorSpec, ...]:
    """Describes the inputs.

    Args:
        infos: The inputs of a compiled function.
        config: The model's configuration.
        model: Gives the longest sequence.
        source_context: Most tokens of an encoder input of an encoder-decoder.

    Raises:
        UnsupportedError: If nothing tells which token ids exist.
    """
    return tuple(_input_spec(info, config, model, source_context) for info in infos)


def plain_specs(infos: Sequence[TensorInfo]) -> tuple[TensorSpec, ...]:
    """Describes outputs or caches, whose values are not limited."""
    return tuple(TensorSpec(info.name, info.dtype, info.shape) for info in infos)


def _input_spec(
    info: TensorInfo, config: Mapping[str, Any], model: ModelInfo, source_context: int | None
) -> TensorSpec:
    minimum: int | None = None
    maximum = info.maximum
    if info.name in _MASKS:
        minimum, maximum = 0, 1
    elif info.name in _LENGTHS:
        minimum, maximum = 0, model.max_length
    elif info.name == _SOURCE_LENGTHS:
        minimum, maximum = 1, source_context  # attention to no token at all has no result
    elif info.name in _ID_LIMITS or maximum is not None:
        minimum = 0
        size = config.get(_ID_LIMITS.get(info.name, ""))
        if isinstance(size, int) and size > 0:
            maximum = size - 1 if maximum is None else min(maximum, size - 1)
    if info.name == "input_ids" and maximum is None:
        raise UnsupportedError(
            "the size of the vocabulary is neither in the graph nor in config.json, so ids cannot be "
            "checked; add 'vocab_size' to config.json"
        )
    return TensorSpec(info.name, info.dtype, info.shape, minimum, maximum, _DEFAULTS.get(info.name))
