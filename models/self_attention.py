"""BERT's self-attention as a graph of its own: one operator, with or without embeddings of distances.

Some families of ``transformers`` spell attention out, and with distances (Shaw et al., 2018; Huang et al., 2020) an
embedding is gathered for every pair of tokens and multiplied with each query. Here each query is multiplied once with
the table of all distances, and the scores of its pairs are picked from the result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.models.cache import merge_heads, split_heads


class SelfAttention(nn.Module):
    """Stands where a ``BertSelfAttention`` or one of its copies stood, on its layers.

    Args:
        attention: The module of ``transformers``; its layers may be compressed.
    """

    places: torch.Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads: int = attention.num_attention_heads
        self.kind: str = getattr(attention, "position_embedding_type", "absolute")
        if self.kind != "absolute":
            self.distance_embedding = attention.distance_embedding
            self.register_buffer("places", torch.arange(attention.max_position_embeddings), persistent=False)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """Attends; further arguments are those of a decoder, of which an encoder has none.

        Args:
            hidden_states: float32, ``[batch, sequence, width]``.
            attention_mask: float32 to add to scores, ``[batch, 1, 1, sequence]``.

        Returns:
            float32, ``[batch, sequence, width]``, and no attention weights.
        """
        query, key, value = (
            split_heads(layer(hidden_states), self.heads) for layer in (self.query, self.key, self.value)
        )
        if self.kind != "absolute":
            attention_mask = self._distance_scores(query, key) + attention_mask
        states = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return merge_heads(states), None

    def _distance_scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        places = self.places[: query.shape[2]]
        distances = places[:, None] - places[None, :] + (len(self.places) - 1)
        table, scale = self.distance_embedding.weight, query.shape[-1] ** -0.5
        scores = picked((query * scale) @ table.T, distances)
        if self.kind == "relative_key_query":
            scores = scores + picked((key * scale) @ table.T, distances.T).transpose(2, 3)
        return scores


def picked(scores: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Picks for each row some of its columns, the same in every batch and head.

    Args:
        scores: float32, ``[batch, heads, rows, all]``.
        columns: int64, ``[rows, some]``.

    Returns:
        float32, ``[batch, heads, rows, some]``.
    """
    return scores.gather(-1, columns[None, None].expand(*scores.shape[:2], -1, -1))
