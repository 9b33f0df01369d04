"""Families and configurations from checkpoint to compiled code: as PyTorch, and the same bits on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.checkpoint import load_checkpoint
from edgeq.models import TorchDecoder, TorchEncoder, positions
from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.machine import this_machine

TARGETS = [
    name
    for name in ("x86-64-vnni", "x86-64-v3", "cortex-a76", "cortex-a72")
    if load_target(name).runs_on(this_machine())
]


def check_whole_way(folder: Path, out: Path, *, recipe: str | None, atol: float = 1e-5) -> None:
    """Compresses, exports and compiles a model, and runs it on texts with padding behind and with holes.

    Args:
        folder: A float checkpoint of an encoder.
        out: Folder for everything that is made.
        recipe: Recipe to compress with; None for a float model.
        atol: Largest difference to PyTorch, which computes in another order.
    """
    checkpoint = folder
    if recipe is not None:
        checkpoint = out / "checkpoint"
        edgeq.compress_model(folder, checkpoint, recipe=recipe)
    edgeq.export_onnx(checkpoint, out / "onnx")
    for name in TARGETS:
        edgeq.compile_bundle(out / "onnx", out / name, target=load_target(name))
    models = [edgeq.load(out / name) for name in TARGETS]
    loaded = load_checkpoint(checkpoint)
    reference = TorchEncoder(loaded.model, loaded.adapter)
    longest = loaded.adapter.max_positions
    for batch, length in ((1, 1), (3, 13), (2, longest)):
        ids = np.random.default_rng(length).integers(5, 80, (batch, length))
        mask = np.ones_like(ids)
        mask[-1, max(1, length - 3) :] = 0
        mask[0, 2:4] = 0
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given = {name: given[name] for name in loaded.adapter.input_names}
        results = [model(**given) for model in models]
        for name, want in reference(**given).items():
            np.testing.assert_allclose(results[0][name], want, atol=atol)
            for other in results[1:]:
                np.testing.assert_array_equal(other[name], results[0][name])


def test_activations_and_positions_of_bert(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """SiLU in the product, scores picked by distance, and a bias of each head: float, so that PyTorch is close."""
    folder = make_bert(hidden_act="silu", position_embedding_type="relative_key_query", num_hidden_layers=1)
    check_whole_way(folder, tmp_path, recipe=None)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["relu", "gelu_new", "quick_gelu", "relu2", "tanh"])
def test_activations_of_low_bit_layers(make_bert: Callable[..., Path], act: str, tmp_path: Path) -> None:
    folder = make_bert(hidden_act=act, position_embedding_type="relative_key", num_hidden_layers=1)
    check_whole_way(folder, tmp_path, recipe="ptq-w4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("XLMRobertaModel", {"type_vocab_size": 1}),
        ("ElectraForSequenceClassification", {"embedding_size": 24}),
        ("AlbertModel", {"embedding_size": 24, "num_hidden_layers": 3}),
    ],
)
def test_families_of_encoders(
    make_encoder: Callable[..., Path], architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    check_whole_way(make_encoder(architecture, **config), tmp_path, recipe="ptq-w4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "config", "recipe"),
    [
        ("LlamaForCausalLM", {"num_attention_heads": 6, "head_dim": 10, "tie_word_embeddings": True}, "ptq-w8a8"),
        ("Qwen2ForCausalLM", {}, "ptq-w4"),
        ("OPTForCausalLM", {}, "ptq-w8a8"),
        ("GPT2LMHeadModel", {"activation_function": "silu", "scale_attn_by_inverse_layer_idx": True}, "ptq-w8a8"),
    ],
)
def test_decoders(
    request: pytest.FixtureRequest, architecture: str, config: dict[str, Any], recipe: str, tmp_path: Path
) -> None:
    """Greedy tokens of several prompts at once: the same bits on every target, and PyTorch's logits."""
    make = request.getfixturevalue("make_gpt2" if architecture.startswith("GPT2") else "make_decoder")
    edgeq.compress_model(make(architecture, **config), tmp_path / "checkpoint", recipe=recipe)
    edgeq.export_onnx(tmp_path / "checkpoint", tmp_path / "onnx")
    prompts = [[5, 80, 200, 17, 45, 6, 99, 3], [9], [30, 31] * 8]
    texts = []
    for name in TARGETS:
        edgeq.compile_bundle(tmp_path / "onnx", tmp_path / name, target=load_target(name), context=32)
        options = {"max_new_tokens": 12, "ignore_end": True, "keep_logits": True}
        texts.append(edgeq.load(tmp_path / name).generate(prompts, **options).results())
    loaded = load_checkpoint(tmp_path / "checkpoint")
    decoder = TorchDecoder(loaded.model, loaded.adapter)
    for index, prompt in enumerate(prompts):
        made = [text[index] for text in texts]
        for other in made[1:]:
            np.testing.assert_array_equal(other.logits, made[0].logits)
        ids = np.array([[*prompt, *map(int, made[0].ids)]])
        mask = np.ones_like(ids)
        logits = decoder(ids, mask, positions(mask, queries=ids.shape[1]))["logits"][0]
        # A key on an edge of float16 may be rounded to either side, and then an activation of the int8 grid.
        error = np.abs(logits[len(prompt) - 1 : -1] - made[0].logits)
        assert np.quantile(error, 0.9) < 2e-3 * np.abs(logits).max()
