"""Rotary positions: the frequencies that transformers derives from a configuration, as tables and as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeq.errors import FormatError, UnsupportedError

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose angles do not depend on the length of the text."""
ROPE_KEYS = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})
"""Keys of ``config.json`` that transformers reads, whose angles are taken."""
TURNED_BEHIND = "turns queries and keys by their positions behind the layers that make them"
"""Why the attention of families with rotary positions is not compared in distillation."""


def check_rotary(config: Any, *, family: str, columns: int) -> None:
    """Refuses angles that depend on the length of the text.

    Args:
        config: A ``transformers`` configuration.
        family: Name of the model family, for the message.
        columns: Columns of each head that are turned.

    Raises:
        UnsupportedError: If the kind of angles is not implemented.
        FormatError: If the columns are no pairs.
    """
    if columns % 2 or columns < 2:
        raise FormatError(f"config.json: heads must have an even number of columns that are turned, found {columns}")
    for kind in _kinds(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}):
        if kind not in ROPE_TYPES:
            raise UnsupportedError(
                f"{family} with rotary positions of type {kind!r} is not supported, "
                f"only {', '.join(map(repr, ROPE_TYPES))}"
            )


def _kinds(values: dict[str, Any]) -> set[str]:
    """The kinds of angles: one, or in newer releases of transformers one for each kind of layer."""
    by_layer = [value for value in values.values() if isinstance(value, dict)]
    return {str(value.get("rope_type", value.get("type", "default"))) for value in by_layer or [values]}


class Rotary(nn.Module):
    """Turns pairs of columns of each head by angles that grow with the position.

    Args:
        frequencies: The angle of each pair at position 1, float32 ``[pairs]``.
        positions: Longest text, for which angles are stored.
        scaling: Factor on cosines and sines.
    """

    cosines: torch.Tensor
    sines: torch.Tensor

    def __init__(self, frequencies: torch.Tensor, *, positions: int, scaling: float = 1.0) -> None:
        super().__init__()
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies.float()[None]
        self.register_buffer("cosines", angles.cos() * scaling, persistent=False)
        self.register_buffer("sines", angles.sin() * scaling, persistent=False)

    @classmethod
    def of(cls, module: Any, *, positions: int) -> Rotary:
        """Returns the same angles as a rotary module of ``transformers``."""
        return cls(module.inv_freq, positions=positions, scaling=float(module.attention_scaling))

    def forward(self, states: torch.Tensor, position_ids: torch.Tensor, *, heads: int) -> torch.Tensor:
        """Turns queries or keys, of each head the first twice as many columns as there are frequencies.

        Args:
            states: float32, ``[batch, sequence, heads * head_size]``.
            position_ids: int64, ``[batch, sequence]``.
            heads: Heads of ``states``.

        Returns:
            float32, of the shape of ``states``.
        """
        columns = 2 * self.cosines.shape[1]
        is_whole = columns == states.shape[-1] // heads
        turned: torch.Tensor = torch.onnx.ops.rotary_embedding(
            states,
            self.cosines,
            self.sines,
            position_ids,
            num_heads=heads,
            rotary_embedding_dim=0 if is_whole else columns,
        )
        return turned
