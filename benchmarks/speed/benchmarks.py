"""What is timed: models of known sizes with random weights, and calls of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Kind = Literal["encode", "prefill", "step"]
HOST = "host"
AVX2 = "x86-64-v3"

MODELS: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert"},
    "minilm-l6": {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "gpt2-small": {"model_type": "gpt2"},
    "tiny-bert": {
        "model_type": "bert", "vocab_size": 211, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 64,
    },
    "tiny-gpt2": {
        "model_type": "gpt2", "vocab_size": 256, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "bos_token_id": 0, "eos_token_id": 0,
    },
}  # fmt: skip
"""Changes to the defaults of the transformers configuration, by the name of a model."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One kind of call.

    Attributes:
        name: Name in tables; with the number of threads it names an entry of the results.
        group: What is measured together in a few minutes.
        model: Key of :data:`MODELS`.
        kind: Encoding texts, reading a prompt, or one step after a prompt.
        recipes: How edgeq compresses the model; each is a setup.
        tokens: Tokens of each text or prompt.
        batch: Texts in a call.
        target: What edgeq compiles for: this machine, or AVX2 with the peers held to it too.
        beside_one: Whether edgeq takes part a second time, with a batch of one.
    """

    name: str
    group: str
    model: str
    kind: Kind
    recipes: tuple[str, ...]
    tokens: int
    batch: int = 1
    target: str = HOST
    beside_one: bool = False


_BERT = ("ptq-w2a8", "ptq-w4a8", "ptq-w8a8")
_BERT_AVX2 = ("ptq-w2a8", "ptq-w7a8", "ptq-w8a8")
_MINILM = ("ptq-w2a8", "ptq-w8a8")
_GPT2 = ("ptq-w2e2a8", "ptq-w4a8", "ptq-w8a8")

BENCHMARKS = (
    *(Benchmark(f"BERT-base, {n} tokens", f"bert-{n}", "bert-base", "encode", _BERT, n) for n in (32, 128, 256, 512)),
    Benchmark("BERT-base, 8 x 128 tokens", "bert-batch", "bert-base", "encode", _BERT, 128, batch=8),
    Benchmark("MiniLM-L6, 16 tokens", "minilm", "minilm-l6", "encode", _MINILM, 16),
    Benchmark("MiniLM-L6, 128 tokens", "minilm", "minilm-l6", "encode", _MINILM, 128),
    Benchmark("GPT-2 small, prompt of 128", "gpt2-prompt", "gpt2-small", "prefill", _GPT2, 128),
    Benchmark("GPT-2 small, step after 160", "gpt2-step", "gpt2-small", "step", _GPT2, 160),
    Benchmark("GPT-2 small, step after 160, batch 4", "gpt2-step", "gpt2-small", "step", _GPT2[:1], 160, 4, HOST, True),
    Benchmark("BERT-base, 128 tokens, AVX2 only", "avx2", "bert-base", "encode", _BERT_AVX2, 128, 1, AVX2),
    Benchmark("MiniLM-L6, 128 tokens, AVX2 only", "avx2", "minilm-l6", "encode", _BERT_AVX2, 128, 1, AVX2),
    Benchmark("GPT-2 small, prompt of 128, AVX2 only", "avx2", "gpt2-small", "prefill", _GPT2[::2], 128, 1, AVX2),
)
SMOKE_BENCHMARKS = (
    Benchmark("tiny BERT, 16 tokens", "smoke", "tiny-bert", "encode", ("ptq-w2a8", "ptq-w8a8"), 16),
    Benchmark("tiny GPT-2, prompt of 16", "smoke", "tiny-gpt2", "prefill", ("ptq-w4a8",), 16),
    Benchmark("tiny GPT-2, step after 16, batch 2", "smoke", "tiny-gpt2", "step", ("ptq-w4a8",), 16, 2, HOST, True),
    Benchmark("tiny BERT, 16 tokens, AVX2 only", "smoke", "tiny-bert", "encode", ("ptq-w8a8",), 16, 1, AVX2),
)
"""Seconds instead of minutes: shows that everything works, says nothing about speed."""


def multiply_adds(work: Benchmark) -> int:
    """Returns the products with weights in one call: what the integer units must do at least.

    Attention's own products are left out, as are a decoder's layers after the last token but for its logits.
    """
    sizes = MODELS[work.model]
    bert = sizes["model_type"] == "bert"
    width = sizes.get("hidden_size", sizes.get("n_embd", 768))
    layers = sizes.get("num_hidden_layers", sizes.get("n_layer", 12))
    inner = sizes.get("intermediate_size", 4 * width)
    tokens = 1 if work.kind == "step" else work.tokens
    once = 0 if bert else width * sizes.get("vocab_size", 50257)
    return work.batch * (tokens * layers * (4 * width * width + 2 * width * inner) + once)
