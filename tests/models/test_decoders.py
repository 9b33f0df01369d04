"""Llama, Qwen2, OPT and GPT-NeoX beside transformers: rotary positions, grouped keys, norms before and behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.models import GenerativeAdapter, TorchDecoder, adapter_for, positions
from edgeq.models.transformers_release import RELEASE

LLAMA = ["LlamaForCausalLM"]
OF_RELEASE_5: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 500.0}),
    "llama, scaled angles": (
        "LlamaForCausalLM",
        {"rope_theta": 700.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0},
    ),
    "qwen2": ("Qwen2ForCausalLM", {"rope_theta": 900.0}, {"rope_type": "default", "rope_theta": 900.0}),
    "gpt-neox": (
        "GPTNeoXForCausalLM",
        {"rotary_emb_base": 300, "rotary_pct": 0.4},
        {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.4},
    ),
}
"""Class, angles in the words of release 4, and in those of release 5."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama, wide heads": ("LlamaForCausalLM", {"head_dim": 14, "num_key_value_heads": 4, "attention_bias": True}),
    "llama, scaled angles": (
        "LlamaForCausalLM",
        {
            "num_key_value_heads": 1,
            "mlp_bias": True,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "opt": ("OPTForCausalLM", {}),
    "opt, norms behind": (
        "OPTForCausalLM",
        {"do_layer_norm_before": False, "word_embed_proj_dim": 24, "activation_function": "gelu", "enable_bias": False},
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", {"rotary_pct": 0.4}),
    "gpt-neox, one half behind the other": (
        "GPTNeoXForCausalLM",
        {"use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False, "tie_word_embeddings": True},
    ),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True, "hidden_act": "gelu"}),
}


@pytest.fixture(scope="module", params=list(CASES))
def folder(request: pytest.FixtureRequest, make_decoder: Callable[..., Path]) -> Path:
    architecture, config = CASES[request.param]
    layers = {"num_hidden_layers": 1} if "," in request.param else {}  # two in one of each family
    return make_decoder(architecture, **layers, **config)


def _left_padded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(3, 97, (3, 11))
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    mask[2, :10] = 0
    return ids, mask, positions(mask, queries=11)


def test_a_family_from_its_checkpoint_to_its_graph(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    adapter, modules = checkpoint.adapter, dict(checkpoint.model.named_modules())
    assert isinstance(adapter, GenerativeAdapter)
    assert set(adapter.linear_names) == {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    assert set(adapter.embedding_names) == {name for name, m in modules.items() if isinstance(m, nn.Embedding)}
    assert all(name in modules for name in adapter.layer_names)
    ids, mask, places = _left_padded()
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    with torch.no_grad():
        want = checkpoint.model(**{key: torch.from_numpy(array) for key, array in given.items()}).logits.numpy()
    exact = TorchDecoder(checkpoint.model, adapter, cache_dtype=torch.float32)(ids, mask, places)["logits"]
    np.testing.assert_allclose(exact[mask == 1], want[mask == 1], atol=1e-5)
    export_onnx(folder, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    past = {
        value.name: np.zeros((3, adapter.cache.heads, 0, adapter.cache.head_size), np.float16)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    [got] = session.run(["logits"], {**given, **past})
    rounded = TorchDecoder(checkpoint.model, adapter)(ids, mask, places)["logits"]
    np.testing.assert_allclose(got[mask == 1], rounded[mask == 1], atol=2e-3)  # a key on an edge of float16


@pytest.mark.parametrize("case", OF_RELEASE_5)
def test_a_folder_of_release_5_has_the_angles_that_it_names(
    case: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Release 4 takes no notice of ``rope_parameters``: it would read another model out of the folder."""
    architecture, config, rope = OF_RELEASE_5[case]
    folder, compressed = make_decoder(architecture, **config), tmp_path / "out"
    compress_model(folder, compressed, recipe="ptq-w8a8")
    ids, mask, _ = _left_padded()
    tensors = {"input_ids": torch.from_numpy(ids[:1]), "attention_mask": torch.from_numpy(mask[:1])}
    with torch.no_grad():
        want = [load_checkpoint(each).model(**tensors).logits for each in (folder, compressed)]
    for each, logits in zip((folder, compressed), want, strict=True):
        _in_words_of_release_5(each, config, rope)
        checkpoint = load_checkpoint(each)
        with torch.no_grad():
            torch.testing.assert_close(checkpoint.model(**tensors).logits, logits)
        assert checkpoint.tokenizer.is_fast
        assert "<here>" in checkpoint.tokenizer.all_special_tokens
    if RELEASE < 5:
        with pytest.raises(UnsupportedError, match="'rope_parameters', which release 5"):
            transformers.AutoModelForCausalLM.from_pretrained(compressed)


def _in_words_of_release_5(folder: Path, config: dict[str, Any], rope: dict[str, Any]) -> None:
    values = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in values.items() if key not in {*config, "rope_scaling"}}
    (folder / "config.json").write_text(json.dumps(kept | {"rope_parameters": rope}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    later = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<here>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | later))


def test_a_head_has_two_names(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    """GPT-NeoX's is ``embed_out`` in files and release 4, and ``lm_head`` in release 5."""
    folder = make_decoder("GPTNeoXForCausalLM")
    tensors = load_file(folder / "model.safetensors")
    want = tensors["embed_out.weight"]
    assert torch.equal(load_checkpoint(folder).model.get_output_embeddings().weight, want)
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load_checkpoint(folder).model.get_output_embeddings().weight, want)
    compress_model(folder, tmp_path / "out", recipe="ptq-w8a8")
    own = load_checkpoint(tmp_path / "out").model.get_output_embeddings().dequantized()
    _as_the_other_release_names_it(tmp_path / "out")
    assert torch.equal(load_checkpoint(tmp_path / "out").model.get_output_embeddings().dequantized(), own)
    if RELEASE < 5:
        with pytest.raises(FormatError, match=r"lacks tensor 'embed_out\.scale'"):
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def _as_the_other_release_names_it(folder: Path) -> None:
    """Renames the packed head of a compressed GPT-NeoX."""
    stored = load_file(folder / "model.safetensors")
    old, new = ("embed_out", "lm_head") if "embed_out.scale" in stored else ("lm_head", "embed_out")
    stored = {name.replace(f"{old}.", f"{new}."): tensor for name, tensor in stored.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    manifest = config["quantization_config"]
    manifest["tensors"][new] = manifest["tensors"].pop(old)
    manifest["files"] = {}
    (folder / "config.json").write_text(json.dumps(config))


def test_token_by_token_equals_at_once(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=torch.float32)
    ids = np.random.default_rng(1).integers(3, 97, (2, 9))
    mask = np.ones_like(ids)
    whole = decoder(ids, mask, positions(mask, queries=9))["logits"]
    past: dict[str, np.ndarray] = {}
    for stop in range(1, 10):
        places = positions(mask[:, :stop], queries=1)
        outputs = decoder(ids[:, stop - 1 : stop], mask[:, :stop], places, **past)
        np.testing.assert_allclose(outputs["logits"][:, 0], whole[:, stop - 1], atol=1e-5)
        past = {name.replace("present", "past_key_values"): a for name, a in outputs.items() if name != "logits"}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            transformers.LlamaConfig(architectures=LLAMA, rope_scaling={"rope_type": "dynamic", "factor": 2}),
            UnsupportedError,
            "Llama with rotary positions of type 'dynamic'",
        ),
        (
            transformers.LlamaConfig(architectures=LLAMA, num_key_value_heads=5),
            FormatError,
            "a multiple of num_key_value_heads, found 32 and 5",
        ),
        (transformers.LlamaConfig(architectures=LLAMA, experts=2), UnsupportedError, "Llama with experts"),
        (
            transformers.Qwen2Config(architectures=["Qwen2ForCausalLM"], use_sliding_window=True),
            UnsupportedError,
            "Qwen2 with attention in a sliding window",
        ),
        (
            transformers.OPTConfig(architectures=["OPTForCausalLM"], layer_norm_elementwise_affine=False),
            UnsupportedError,
            "OPT with norms without weights",
        ),
    ],
)
def test_what_is_refused(config: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        adapter_for(config)


def test_the_task_chooses_the_class() -> None:
    config = transformers.LlamaConfig()
    assert adapter_for(config, "text-generation").architecture == "LlamaForCausalLM"
    assert adapter_for(config, "text-classification").architecture == "LlamaForSequenceClassification"
    with pytest.raises(UnsupportedError, match="no fill-mask for model type 'llama'; it has"):
        adapter_for(config, "fill-mask")


def test_an_older_opset_is_refused(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="LlamaForCausalLM needs opset 23"):
        export_onnx(make_decoder("LlamaForCausalLM"), tmp_path / "onnx", opset=20)
