"""Runs a PyTorch model from numpy arrays: the reference that other backends are compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeq.models.adapter import ExportPart, GenerativeAdapter, ModelAdapter
from edgeq.models.cache import DEFAULT_CACHE_DTYPE
from edgeq.models.sentence import POOLING_MASK

_PAST = "past_key_values."


def log_sum_exp_in_place(values: torch.Tensor) -> torch.Tensor:
    """Returns what ``values.logsumexp(-1)`` returns, to the bit, without a second tensor of their size.

    Args:
        values: float32 of any shape; they are lost.
    """
    most = values.amax(dim=-1, keepdim=True)
    most.masked_fill_(most.abs() == torch.inf, 0.0)
    return values.sub_(most).exp_().sum(dim=-1).log_().add_(most.squeeze(-1))


class TorchEncoder:
    """A model as a function from numpy arrays to numpy arrays.

    It runs the module that is exported, so that every later stage is compared with the same graph.

    Args:
        model: A float or compressed model; it is put into evaluation mode.
        adapter: The adapter of the model.
    """

    def __init__(self, model: nn.Module, adapter: ModelAdapter) -> None:
        part = adapter.graph(model)
        self._module = part.module.eval()
        self._input_names, self._output_names = part.input_names, part.output_names

    def __call__(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        token_type_ids: np.ndarray | None = None,
        pooling_mask: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a batch.

        Args:
            input_ids: int64, ``[batch, sequence]``.
            attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.
            token_type_ids: int64, ``[batch, sequence]``; None is all zeros. Models without token types ignore them.
            pooling_mask: int64, ``[batch, sequence]``, 0 for tokens of a prompt that the pooling leaves out; None
                leaves out none.

        Returns:
            float32 arrays by output name.
        """
        types = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        kept = np.ones_like(input_ids) if pooling_mask is None else pooling_mask
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": types, POOLING_MASK: kept}
        tensors = [torch.from_numpy(np.asarray(given[name], np.int64)) for name in self._input_names]
        # no_grad, not inference_mode: weights decoded here may later take part in a traced export.
        with torch.no_grad():
            result = self._module(*tensors)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        return {name: out.numpy() for name, out in zip(self._output_names, outputs, strict=True)}


class TorchDecoder:
    """A decoder with its cache as a function from named numpy arrays to named numpy arrays.

    Like :class:`TorchEncoder`, it runs the module that is exported.

    Args:
        model: A float or compressed model; it is put into evaluation mode.
        adapter: The adapter of the model.
        cache_dtype: Type of the cache: float16, float32 or int8.
    """

    def __init__(
        self, model: nn.Module, adapter: GenerativeAdapter, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE
    ) -> None:
        self._part = adapter.export_part(model, cache_dtype=cache_dtype)
        self._module = self._part.module.eval()
        self._adapter = adapter
        self._cache_dtype = cache_dtype

    def __call__(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        position_ids: np.ndarray,
        **past: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Runs a batch.

        Args:
            input_ids: int64, ``[batch, sequence]``.
            attention_mask: int64, ``[batch, past + sequence]``, 1 for a token and 0 for padding.
            position_ids: int64, ``[batch, sequence]``; see :func:`positions`.
            **past: The cache by input name; left out before the first token.

        Returns:
            Arrays by output name.
        """
        tokens = [
            torch.from_numpy(np.asarray(a, np.int64)) for a in (input_ids, attention_mask, position_ids)
        ]
        cache_names = self._part.input_names[len(tokens) :]
        cache = (
            [torch.from_numpy(past[name]) for name in cache_names] if past else self._empty(len(input_ids))
        )
        with torch.no_grad():
            outputs = self._module(*tokens, cache)
        return {name: out.numpy() for name, out in zip(self._part.output_names, outputs, strict=True)}

    def score(self, ids: np.ndarray) -> np.ndarray:
        """Returns the natural logarithm of the probability of each token after the first.

        Args:
            ids: int64, ``[batch, length]``, without padding.

        Returns:
            float32, ``[batch, length - 1]``.
        """
        tokens = torch.from_numpy(np.asarray(ids, np.int64))
        read, following = tokens[:, :-1], tokens[:, 1:]
        places = torch.arange(read.shape[1]).expand_as(read)
        with torch.no_grad():
            logits = self._module(read, torch.ones_like(read), places, self._empty(len(read)))[0]
            chosen = logits.gather(-1, following[..., None]).squeeze(-1)
            return (chosen - log_sum_exp_in_place(logits)).numpy()

    def _empty(self, batch: int) -> list[torch.Tensor]:
        return self._adapter.cache.empty(batch, dtype=self._cache_dtype)


class TorchPart:
    """One part of a model as a function from named numpy arrays to named numpy arrays.

    Args:
        part: What :meth:`Seq2SeqAdapter.export_parts` returned one of.
    """

    def __init__(self, part: ExportPart) -> None:
        self._part = part
        self._module = part.module.eval()

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs a batch.

        Args:
            **inputs: Arrays by input name; see the part's module.

        Returns:
            Arrays by output name.
        """
        names = self._part.input_names
        arguments: list[torch.Tensor | list[torch.Tensor]] = [
            torch.from_numpy(inputs[name]) for name in names if not name.startswith(_PAST)
        ]
        if past := [torch.from_numpy(inputs[name]) for name in names if name.startswith(_PAST)]:
            arguments.append(past)
        with torch.no_grad():
            result = self._module(*arguments)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        return {name: out.numpy() for name, out in zip(self._part.output_names, outputs, strict=True)}


def positions(attention_mask: np.ndarray, *, queries: int) -> np.ndarray:
    """Returns the position of each of the last tokens: how many tokens, not counting padding, are before it.

    Args:
        attention_mask: int64, ``[batch, past + queries]``, 1 for a token and 0 for padding.
        queries: Number of tokens at the end.

    Returns:
        int64, ``[batch, queries]``; 0 for padding in front of the text.
    """
    counted = np.cumsum(attention_mask, axis=1, dtype=np.int64) - 1
    return np.maximum(counted, 0)[:, attention_mask.shape[1] - queries :]
