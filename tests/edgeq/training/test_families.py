"""Families whose attention cannot be compared are trained as well: fewer layers, low-bit weights, hidden states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UnsupportedError, UsageError
from edgeq.factor.apply import factorise
from edgeq.factor.kinds.low_rank import LowRankSettings
from edgeq.recipes import TrainingRequest

DEBERTA = {"relative_attention": True, "position_buckets": 6, "share_att_key": True, "pos_att_type": "p2c|c2p"}
SENTENCES = ["good movie", "lazy dog", "the cat sat over the fox", "a quick brown fox"]
LABELLED = "sentence\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(SENTENCES * 2))
PLAIN = "text\n" + "".join(f"{text}\n" for text in SENTENCES * 2)
RECIPE = """extends = "xtc-l12-w2a8"
family = "own"
[layers]
keep = [1]
[distill]
attention = {attention}
[training]
batch_size = 4
max_length = 16
"""
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", {"tie_word_embeddings": True}, PLAIN),
    "qwen2": ("Qwen2ForCausalLM", {}, PLAIN),
    "gpt-neox": ("GPTNeoXForCausalLM", {}, PLAIN),
    "deberta": ("DebertaV2ForSequenceClassification", DEBERTA, LABELLED),
}


@pytest.fixture
def compress(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that trains a compressed model of a family on a few lines, and returns its folder."""

    def run(case: str, recipe_text: str) -> Path:
        architecture, config, lines = CASES[case]
        make = request.getfixturevalue("make_decoder" if "CausalLM" in architecture else "make_encoder")
        data, recipe = tmp_path / "train.tsv", tmp_path / "tiny.toml"
        data.write_text(lines)
        recipe.write_text(recipe_text)
        training = TrainingRequest(train_data=data, eval_data=data, epochs=1)
        compress_model(make(architecture, **config), tmp_path / "out", recipe=recipe, training=training)
        return tmp_path / "out"

    return run


@pytest.mark.parametrize("case", CASES)
def test_fewer_layers_and_low_bit_weights(compress: Callable[..., Path], case: str) -> None:
    checkpoint = load_checkpoint(compress(case, RECIPE.format(attention=0.0)))
    assert checkpoint.adapter.stacks[0].depth == 1
    packed = checkpoint.manifest.tensors if checkpoint.manifest is not None else {}
    assert {tensor.spec.bits for tensor in packed.values()} == {2}


def test_attention_that_cannot_be_compared_is_refused(compress: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"LlamaForCausalLM turns queries.*'attention' weight 0"):
        compress("llama", RECIPE.format(attention=1.0))


def test_factors_of_a_family_without_stacks_are_refused(make_encoder: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(make_encoder("AlbertModel", embedding_size=24))
    with pytest.raises(UnsupportedError, match="factorises no layer of AlbertModel, which runs one layer many times"):
        factorise(checkpoint.model, checkpoint.adapter, LowRankSettings(2))
