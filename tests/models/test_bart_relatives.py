"""Marian, Pegasus and mBART, and configurations of BART, beside transformers: from the checkpoint to the graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UnsupportedError
from edgeq.export.exporter import export_onnx
from edgeq.models import Seq2SeqAdapter, adapter_for
from edgeq.parity.reference import Reference
from edgeq.parity.rules.isolated import allowed, isolate
from edgeq.quant.trainable import freeze, make_trainable
from edgeq.recipes import load_recipe, plan_layers

MARIAN = {"activation_function": "swish", "scale_embedding": True, "pad_token_id": 1, "decoder_start_token_id": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "marian": ("MarianMTModel", {**MARIAN, "eos_token_id": 2, "forced_eos_token_id": 2}),
    "pegasus": ("PegasusForConditionalGeneration", {"activation_function": "relu", "scale_embedding": True}),
    "mbart": ("MBartForConditionalGeneration", {"scale_embedding": True}),
    "bart, scaled": ("BartForConditionalGeneration", {"scale_embedding": True}),
    "bart, another activation": ("BartForConditionalGeneration", {"activation_function": "gelu_new"}),
}


@pytest.fixture(scope="module", params=list(CASES))
def folder(request: pytest.FixtureRequest, make_bart: Callable[..., Path]) -> Path:
    architecture, config = CASES[request.param]
    layers = {} if request.param == "mbart" else {"encoder_layers": 1, "decoder_layers": 1}
    return make_bart(architecture, **layers, **config)


def test_a_family_from_its_checkpoint_to_its_graphs(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    adapter, modules = checkpoint.adapter, dict(checkpoint.model.named_modules())
    assert isinstance(adapter, Seq2SeqAdapter)
    assert set(adapter.linear_names) == {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    everywhere = checkpoint.model.named_modules(remove_duplicate=False)  # one table may stand in several places
    assert set(adapter.embedding_names) == {name for name, module in everywhere if isinstance(module, nn.Embedding)}
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 283, (3, 11)), rng.integers(4, 283, (3, 7))
    mask = np.ones_like(source)
    mask[1, 5:] = 0
    mask[2, 3:6] = 0
    tensors = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": target}
    with torch.no_grad():
        want = checkpoint.model(**{name: torch.from_numpy(a) for name, a in tensors.items()}).logits.numpy()
        exact = adapter.export_module(checkpoint.model, cache_dtype=torch.float32)
        np.testing.assert_allclose(exact(*map(torch.from_numpy, tensors.values())).numpy(), want, atol=1e-5)
    export_onnx(folder, tmp_path / "onnx", cache="float32")
    encoder, first, step = (
        onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx")
        for name in ("encoder_model", "decoder_model", "decoder_with_past_model")
    )
    states = encoder.run(None, {"input_ids": source, "attention_mask": mask})[0]
    given = {"encoder_attention_mask": mask, "input_ids": target[:, :4], "encoder_hidden_states": states}
    names = [output.name for output in first.get_outputs()]
    outputs = dict(zip(names, first.run(names, given), strict=True))
    np.testing.assert_allclose(outputs.pop("logits"), want[:, :4], atol=2e-5)
    past = {name.replace("present", "past_key_values"): array for name, array in outputs.items()}
    [rest] = step.run(["logits"], {"encoder_attention_mask": mask, "input_ids": target[:, 4:], **past})
    np.testing.assert_allclose(rest, want[:, 4:], atol=2e-5)


def test_computed_positions_of_a_compressed_checkpoint(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    architecture, config = CASES["marian"]
    compress_model(make_bart(architecture, **config), tmp_path / "out", recipe="ptq-w4")
    checkpoint = load_checkpoint(tmp_path / "out")
    fresh = getattr(transformers, architecture)(checkpoint.adapter.config)
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        torch.testing.assert_close(checkpoint.model.state_dict()[name], fresh.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("case", ["mbart", "marian"])
def test_low_bit_tables_scale_as_float_ones_do(make_bart: Callable[..., Path], case: str, tmp_path: Path) -> None:
    """As transformers runs the compressed checkpoint, as the reference does, in training and in a checkpoint."""
    architecture, config = CASES[case]
    folder = make_bart(architecture, **config)
    compress_model(folder, tmp_path / "out", recipe="ptq-w2e2a8")
    packed, float_model = load_checkpoint(tmp_path / "out"), load_checkpoint(folder).model
    ids = torch.tensor([[7, 80, 5, 9]])
    embed = packed.model.model.encoder.embed_tokens
    rows = functional.embedding(ids, embed.centred_codes()) * embed.scale[ids].unsqueeze(-1)
    factor = getattr(float_model.model.encoder.embed_tokens, "embed_scale", 1.0)
    assert (factor == 6.0) == (case == "mbart")
    torch.testing.assert_close(embed(ids), rows * factor, rtol=0, atol=0)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        want = packed.model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids).logits
        got = packed.adapter.export_module(packed.model, cache_dtype=torch.float32)(ids, mask, ids)
    assert (got - want).abs().quantile(0.9) < 5e-3 * want.abs().max()  # an activation on an edge of the int8 grid


def test_a_table_that_scales_is_proved_before_its_factor(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bart("MBartForConditionalGeneration", scale_embedding=True)
    compress_model(folder, tmp_path / "out", recipe="ptq-w2e2a8")
    export_onnx(tmp_path / "out", tmp_path / "onnx")
    checkpoint, ids = load_checkpoint(tmp_path / "out"), np.array([[7, 80, 5, 9]])

    def run(feed: Any, /) -> Any:
        tensor = torch.from_numpy(feed["input_ids"])
        with torch.no_grad():
            return {"logits": checkpoint.model(input_ids=tensor, decoder_input_ids=tensor).logits.numpy()}

    layers = Reference(checkpoint, run).record({"input_ids": ids})
    graph = onnx.load(tmp_path / "onnx" / "encoder_model.onnx")
    _, cases = isolate(graph, layers)
    [table] = [case for case in cases if case.layer.name == "model.encoder.embed_tokens"]
    np.testing.assert_array_equal(table.output, allowed(table).exact)
    for node in graph.graph.node:
        if node.name == "model.encoder.embed_tokens/LowBitEmbedding":
            node.op_type, node.domain = "Gather", ""
    with pytest.raises(UnsupportedError, match="embed_tokens is packed in the checkpoint, but the ONNX model computes"):
        isolate(graph, layers)


def test_a_table_in_training_scales(make_bart: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(make_bart("MBartForConditionalGeneration", scale_embedding=True))
    model, ids = checkpoint.model, torch.tensor([[7, 80, 5, 9]])
    plans = plan_layers(load_recipe("xtc-l12-w2a8"), checkpoint.adapter)
    make_trainable(model, plans)
    before = model.model.encoder.embed_tokens(ids)
    torch.testing.assert_close(before, 6.0 * model.model.shared.decoded_rows(ids))
    freeze(model)
    torch.testing.assert_close(model.model.encoder.embed_tokens(ids), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.MarianConfig(architectures=["MarianMTModel"], share_encoder_decoder_embeddings=False),
            "a table of tokens for each side",
        ),
        (
            transformers.BartConfig(architectures=["BartForConditionalGeneration"], normalize_before=True),
            "BART with normalize_before = True",
        ),
        (
            transformers.PegasusConfig(architectures=["PegasusForConditionalGeneration"], adapters=True),
            "Pegasus with adapters",
        ),
    ],
)
def test_what_is_refused(config: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        adapter_for(config)


def test_what_fairseq_says_of_a_family_is_accepted() -> None:
    said = {"normalize_before": True, "add_final_layer_norm": True, "static_position_embeddings": True}
    adapter_for(transformers.PegasusConfig(architectures=["PegasusForConditionalGeneration"], **said))
