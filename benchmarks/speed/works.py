"""What is timed: models of known sizes with random weights, and calls of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Kind = Literal["encode", "prefill", "step"]

MODELS: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert"},
    "minilm-l6": {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "gpt2-small": {"model_type": "gpt2"},
    "tiny-bert": {
        "model_type": "bert", "vocab_size": 211, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 64,
    },
    "tiny-gpt2": {
        "model_type": "gpt2", "vocab_size": 211, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "bos_token_id": 0, "eos_token_id": 0,
    },
}  # fmt: skip
"""Changes to the defaults of the transformers configuration, by the name of a model."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One kind of call.

    Attributes:
        name: Name in tables.
        model: Key of :data:`MODELS`.
        kind: Encoding texts, reading a prompt, or one step after a prompt.
        recipe: How edgeq compresses the model.
        tokens: Tokens of each text or prompt.
        batch: Texts in a call.
    """

    name: str
    model: str
    kind: Kind
    recipe: str
    tokens: int
    batch: int = 1


WORKS = (
    *(Work(f"BERT-base w2a8, {n} tokens", "bert-base", "encode", "ptq-w2a8", n) for n in (32, 128, 256)),
    Work("BERT-base w2a8, 8 x 128 tokens", "bert-base", "encode", "ptq-w2a8", 128, batch=8),
    *(Work(f"MiniLM-L6 w{b}a8, 128 tokens", "minilm-l6", "encode", f"ptq-w{b}a8", 128) for b in (2, 8)),
    Work("GPT-2 small w2e2a8, prompt of 128", "gpt2-small", "prefill", "ptq-w2e2a8", 128),
    Work("GPT-2 small w2e2a8, step after 160", "gpt2-small", "step", "ptq-w2e2a8", 160),
    Work("GPT-2 small w2e2a8, step after 160, batch 4", "gpt2-small", "step", "ptq-w2e2a8", 160, batch=4),
    *(Work(f"GPT-2 small w{b}a8, step after 160", "gpt2-small", "step", f"ptq-w{b}a8", 160) for b in (4, 8)),
)
SMOKE_WORKS = (
    Work("tiny BERT, 16 tokens", "tiny-bert", "encode", "ptq-w4a8", 16),
    Work("tiny GPT-2, prompt of 16", "tiny-gpt2", "prefill", "ptq-w4a8", 16),
    Work("tiny GPT-2, step after 16", "tiny-gpt2", "step", "ptq-w4a8", 16),
)
"""Seconds instead of minutes: shows that everything works, says nothing about speed."""
