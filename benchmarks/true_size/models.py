"""GPT-2 small and BART-base with random weights: their sizes and shapes are real, what they write is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SEED = 0
MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class TrueSize:
    """A published architecture.

    Attributes:
        make: Makes it with random weights.
        most_bytes: Bytes that its tensors may take with 2-bit weights and 8-bit activations.
        reads_source: True for an encoder-decoder.
    """

    make: Callable[[], PreTrainedModel]
    most_bytes: int
    reads_source: bool


def _gpt2_small() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config())


def _bart_base() -> PreTrainedModel:
    layers = {"encoder_layers": 6, "decoder_layers": 6}
    heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    config = BartConfig(d_model=768, encoder_ffn_dim=3072, decoder_ffn_dim=3072, **layers, **heads)
    model = BartForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


MODELS = {
    "gpt2-small": TrueSize(_gpt2_small, int(33.19 * MEBIBYTE), reads_source=False),
    "bart-base": TrueSize(_bart_base, int(39.7 * MEBIBYTE), reads_source=True),
}
"""By name. The bounds follow QuantGPT's sizes for 2-bit weights and embeddings, scales included."""


def save_random(name: str, folder: Path) -> int:
    """Writes a model with random weights and a tokenizer of single bytes, and returns the number of weights.

    Args:
        name: Key of :data:`MODELS`.
        folder: Folder to write.
    """
    torch.manual_seed(SEED)
    model = MODELS[name].make()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Encodes any text; what a model of random weights writes is no text anyway."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    pieces = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    roles = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **roles)
