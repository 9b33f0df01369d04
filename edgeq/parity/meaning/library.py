"""A library that people use a model with, and what it makes of a text."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeq.errors import EdgeqError
from edgeq.parity.meaning.samples import Sample


class NotCheckedError(EdgeqError):
    """A library is not here, or does not load the float model; the message says why."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was made of one sample.

    Attributes:
        ids: Token ids that the model was called with, special ones included.
        types: For each token, which text of a pair it belongs to; None if that was not said.
        names: What the numbers are of, such as the names of classes; None where nothing says it.
        numbers: float64, flat: an embedding, or scores.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    names: tuple[str, ...] | None
    numbers: np.ndarray


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Nothing was made of a sample; ``why`` is what was said."""

    why: str


class Library(abc.ABC):
    """A library with the float model, whose arithmetic another model's can take the place of.

    Everything around the arithmetic stays the library's own, as the float model's folder says: tokens, truncation,
    prompts, pooling, scores. So its answers with the compressed model in the middle say what the compressed model
    *means*, and differ from a bundle's by no more than rounding does.
    """

    name: str
    """What reports call it."""

    @abc.abstractmethod
    def let_go(self) -> None:
        """Gives back the memory of the library's own model; another is used from now on."""

    @abc.abstractmethod
    def use(self, model: nn.Module) -> None:
        """Lets a model of the same class compute from now on."""

    @abc.abstractmethod
    def read(self, sample: Sample) -> Reading | Refusal:
        """Returns what the library makes of a sample; a refusal if it fails on it."""

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Ends what the library runs in."""


class Replaceable:
    """Hands the calls of a ``transformers`` model to another one of its class, and keeps what each call was given.

    Args:
        model: The model; its ``forward`` is replaced.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._forward: Callable[..., Any] = model.forward
        self.calls: list[dict[str, Any]] = []

        @functools.wraps(model.forward)  # libraries look at the names of its arguments
        def forward(*arguments: Any, **named: Any) -> Any:
            self.calls.append(named)
            return self._forward(*arguments, **named)

        model.forward = forward

    def let_go(self) -> None:
        """Gives back the memory of the model's own weights."""
        for parameter in self._model.parameters():
            parameter.data = torch.empty(0, dtype=parameter.dtype)

    def use(self, other: Any) -> None:
        """Lets another model compute."""
        self._forward = other.forward
        if hasattr(self._model, "get_encoder") and getattr(self._model.config, "is_encoder_decoder", False):
            self._model.get_encoder = other.get_encoder

    def tokens(self) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Returns ids and types of the only text of the last call."""
        last = self.calls[-1]
        kept = np.asarray(last["attention_mask"])[0].astype(bool) if "attention_mask" in last else slice(None)
        ids = np.asarray(last["input_ids"])[0][kept]
        types = last.get("token_type_ids")
        return tuple(ids.tolist()), None if types is None else tuple(np.asarray(types)[0][kept].tolist())
