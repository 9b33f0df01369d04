"""What is timed: models of known sizes with random weights, and calls of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Kind = Literal["encode", "prefill", "step", "rewrite"]
HOST = "host"
AVX2 = "x86-64-v3"

MODELS: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert"},
    "minilm-l6": {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "gpt2-small": {"model_type": "gpt2"},
    "bart-base": {
        "model_type": "bart", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
        "normalize_before": False, "forced_eos_token_id": None,
    },
    "tiny-bert": {
        "model_type": "bert", "vocab_size": 211, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 64,
    },
    "tiny-gpt2": {
        "model_type": "gpt2", "vocab_size": 256, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "bos_token_id": 0, "eos_token_id": 0,
    },
    "tiny-bart": {
        "model_type": "bart", "vocab_size": 256, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "max_position_embeddings": 64, "normalize_before": False, "forced_eos_token_id": None,
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
        kind: Encoding texts, reading a prompt, one step after a prompt, or reading a text and writing another.
        recipes: How edgeq compresses the model; each is a setup.
        tokens: Tokens of each text or prompt.
        batch: Texts in a call.
        target: What edgeq compiles for: this machine, or AVX2 with the peers held to it too.
        beside_one: Whether edgeq takes part a second time, with a batch of one.
        new_tokens: Tokens that are written for a text that is read.
        beams: Beams of the search for them; greedy with one.
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
    new_tokens: int = 0
    beams: int = 1


_BERT = ("ptq-w2a8", "ptq-w4a8", "ptq-w8a8")
_BERT_AVX2 = ("ptq-w2a8", "ptq-w7a8", "ptq-w8a8")
_MINILM = ("ptq-w2a8", "ptq-w8a8")
_GPT2 = ("ptq-w2e2a8", "ptq-w4a8", "ptq-w8a8")
_BART = ("ptq-w8a8",)

BENCHMARKS = (
    *(Benchmark(f"BERT-base, {n} tokens", f"bert-{n}", "bert-base", "encode", _BERT, n) for n in (32, 128, 256, 512)),
    Benchmark("BERT-base, 8 x 128 tokens", "bert-batch", "bert-base", "encode", _BERT, 128, batch=8),
    Benchmark("MiniLM-L6, 16 tokens", "minilm", "minilm-l6", "encode", _MINILM, 16),
    Benchmark("MiniLM-L6, 128 tokens", "minilm", "minilm-l6", "encode", _MINILM, 128),
    Benchmark("GPT-2 small, prompt of 128", "gpt2-prompt", "gpt2-small", "prefill", _GPT2, 128),
    Benchmark("GPT-2 small, step after 160", "gpt2-step", "gpt2-small", "step", _GPT2, 160),
    Benchmark("GPT-2 small, step after 160, batch 4", "gpt2-step", "gpt2-small", "step", _GPT2[:1], 160, 4, HOST, True),
    Benchmark("BART-base, 512 tokens in, 64 out", "bart", "bart-base", "rewrite", _BART, 512, new_tokens=64),
    Benchmark(
        "BART-base, 512 tokens in, 64 out, 4 beams", "bart", "bart-base", "rewrite", _BART, 512, new_tokens=64, beams=4
    ),
    Benchmark("BERT-base, 128 tokens, AVX2 only", "avx2", "bert-base", "encode", _BERT_AVX2, 128, 1, AVX2),
    Benchmark("MiniLM-L6, 128 tokens, AVX2 only", "avx2", "minilm-l6", "encode", _BERT_AVX2, 128, 1, AVX2),
    Benchmark("GPT-2 small, prompt of 128, AVX2 only", "avx2", "gpt2-small", "prefill", _GPT2[::2], 128, 1, AVX2),
)
SMOKE_BENCHMARKS = (
    Benchmark("tiny BERT, 16 tokens", "smoke", "tiny-bert", "encode", ("ptq-w2a8", "ptq-w8a8"), 16),
    Benchmark("tiny GPT-2, prompt of 16", "smoke", "tiny-gpt2", "prefill", ("ptq-w4a8",), 16),
    Benchmark("tiny GPT-2, step after 16, batch 2", "smoke", "tiny-gpt2", "step", ("ptq-w4a8",), 16, 2, HOST, True),
    Benchmark("tiny BART, 16 tokens in, 4 out", "smoke", "tiny-bart", "rewrite", _BART, 16, new_tokens=4, beams=2),
    Benchmark("tiny BERT, 16 tokens, AVX2 only", "smoke", "tiny-bert", "encode", ("ptq-w8a8",), 16, 1, AVX2),
)
"""Seconds instead of minutes: shows that everything works, says nothing about speed."""


def multiply_adds(work: Benchmark) -> int:
    """Returns the products with weights in one call: what the integer units must do at least.

    Attention's own products are left out, as are a decoder's layers after the last token but for its logits.
    """
    sizes = MODELS[work.model]
    if work.kind == "rewrite":
        return work.batch * _rewriting(work, sizes)
    bert = sizes["model_type"] == "bert"
    width = sizes.get("hidden_size", sizes.get("n_embd", 768))
    layers = sizes.get("num_hidden_layers", sizes.get("n_layer", 12))
    inner = sizes.get("intermediate_size", 4 * width)
    tokens = 1 if work.kind == "step" else work.tokens
    once = 0 if bert else width * sizes.get("vocab_size", 50257)
    return work.batch * (tokens * layers * (4 * width * width + 2 * width * inner) + once)


def _rewriting(work: Benchmark, sizes: dict[str, Any]) -> int:
    """Products of one text: its encoder, the keys and values that the decoder makes of it, and the decoder's steps."""
    width, inner, layers = sizes["d_model"], sizes["encoder_ffn_dim"], sizes["decoder_layers"]
    encoder = work.tokens * sizes["encoder_layers"] * (4 * width * width + 2 * width * inner)
    seen = work.tokens * layers * 2 * width * width
    step = layers * (6 * width * width + 2 * width * sizes["decoder_ffn_dim"]) + width * sizes.get("vocab_size", 50265)
    return encoder + seen + work.new_tokens * work.beams * step
