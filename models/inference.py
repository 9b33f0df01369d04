"""Runs a PyTorch model from numpy arrays: the reference that other backends are compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeq.models.adapter import ModelAdapter


class TorchEncoder:
    """A model as a function from numpy arrays to numpy arrays.

    It runs the module that is exported, so that every later stage is compared with the same graph.

    Args:
        model: A float or compressed model; it is put into evaluation mode.
        adapter: The adapter of the model.
    """

    def __init__(self, model: nn.Module, adapter: ModelAdapter) -> None:
        self._module = adapter.export_module(model).eval()
        self._output_names = adapter.output_names

    def __call__(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Runs a batch.

        Args:
            input_ids: int64, ``[batch, sequence]``.
            attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.
            token_type_ids: int64, ``[batch, sequence]``.

        Returns:
            float32 arrays by output name.
        """
        tensors = [
            torch.from_numpy(np.asarray(a, np.int64)) for a in (input_ids, attention_mask, token_type_ids)
        ]
        # no_grad, not inference_mode: weights decoded here may later take part in a traced export.
        with torch.no_grad():
            result = self._module(*tensors)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        return {name: out.numpy() for name, out in zip(self._output_names, outputs, strict=True)}
