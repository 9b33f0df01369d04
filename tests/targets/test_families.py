"""Families and configurations from checkpoint to compiled code: as PyTorch, and the same bits on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeq
from edgeq.checkpoint import load_checkpoint
from edgeq.models import TorchDecoder, TorchEncoder, positions
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.machine import this_machine

TARGETS = [
    name
    for name in ("x86-64-vnni", "x86-64-v3", "cortex-a76", "cortex-a72")
    if load_target(name).runs_on(this_machine())
]

CORES = ["cortex-a72", "cortex-a7"]
"""Emulated cores: 64 bits without dot product, and 32 bits."""


def check_whole_way(
    folder: Path, out: Path, *, recipe: str | None, task: str | None = None, holes: bool = True, atol: float = 1e-5
) -> None:
    """Compresses, exports and compiles a model, and runs it on texts with padding behind and with holes.

    Args:
        folder: A float checkpoint of an encoder.
        out: Folder for everything that is made.
        recipe: Recipe to compress with; None for a float model.
        task: What to make of the model; None takes what it was made for.
        holes: Whether texts with holes are run, which models whose positions count from the left do not know.
        atol: Largest difference to PyTorch, which computes in another order.
    """
    checkpoint = folder
    if recipe is not None:
        checkpoint = out / "checkpoint"
        edgeq.compress_model(folder, checkpoint, recipe=recipe, task=task)
    edgeq.export_onnx(checkpoint, out / "onnx", task=task)
    host = edgeq.compile_bundle(out / "onnx", out / "host", target=load_target("host"))
    for name in TARGETS:
        edgeq.compile_bundle(out / "onnx", out / name, target=load_target(name), host_bundle=host)
    models = [edgeq.load(out / name) for name in TARGETS]
    loaded = load_checkpoint(checkpoint, task=task)
    reference = TorchEncoder(loaded.model, loaded.adapter)
    longest = loaded.adapter.max_positions
    for batch, length in ((1, 1), (3, 13), (2, longest)):
        ids = np.random.default_rng(length).integers(5, 80, (batch, length))
        mask = np.ones_like(ids)
        mask[-1, max(1, length - 3) :] = 0
        mask[0, 2:4] = 0 if holes else 1
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


DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 6,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("XLMRobertaModel", {"type_vocab_size": 1}),
        ("ElectraForSequenceClassification", {"embedding_size": 24}),
        ("AlbertModel", {"embedding_size": 24, "num_hidden_layers": 3}),
        ("MPNetModel", {"max_position_embeddings": 300}),
        ("ModernBertForSequenceClassification", {"local_attention": 6, "classifier_pooling": "mean"}),
        ("DebertaV2Model", DEBERTA_V3),
    ],
)
def test_families_of_encoders(
    make_encoder: Callable[..., Path], architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    check_whole_way(make_encoder(architecture, **config), tmp_path, recipe="ptq-w4")


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("MPNetModel", {}),
        ("ModernBertModel", {"local_attention": 6, "global_attn_every_n_layers": 2}),
        ("DebertaV2Model", DEBERTA_V3),
    ],
)
def test_encoders_on_an_emulated_core(
    make_encoder: Callable[..., Path],
    needs_core: Callable[[str], None],
    architecture: str,
    config: dict[str, Any],
    core: str,
    tmp_path: Path,
) -> None:
    needs_core(core)
    edgeq.compress_model(make_encoder(architecture, **config), tmp_path / "checkpoint", recipe="ptq-w8a8")
    board, host = bundles(tmp_path, core)
    ids = np.random.default_rng(5).integers(5, 80, (3, 33))
    mask = np.ones_like(ids)
    mask[1, 20:] = 0
    mask[2, 2:4] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    for name, found in emulator.run_bundle(board, given).items():
        np.testing.assert_array_equal(found, edgeq.load(host)(**given)[name])


def bundles(folder: Path, core: str, *, cache: str = "float16") -> tuple[Path, Path]:
    """Exports the checkpoint of a folder and returns its bundles for an emulated core and for this machine."""
    edgeq.export_onnx(folder / "checkpoint", folder / "onnx", cache=cache)
    host = edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))
    board = edgeq.compile_bundle(folder / "onnx", folder / core, target=load_target(core), host_bundle=host)
    return board, host


@pytest.mark.parametrize(
    "architecture",
    [
        "GPT2ForSequenceClassification",
        pytest.param("LlamaForSequenceClassification", marks=pytest.mark.slow),
        pytest.param("Qwen2ForSequenceClassification", marks=pytest.mark.slow),
        pytest.param("OPTForSequenceClassification", marks=pytest.mark.slow),
        pytest.param("BartForSequenceClassification", marks=pytest.mark.slow),
    ],
)
def test_decoders_that_label_texts(architecture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The label of the last token, without a cache; Llama's keys serve several heads each."""
    family = architecture.partition("For")[0].lower()
    make = request.getfixturevalue(f"make_{family}" if family in ("gpt2", "bart") else "make_decoder")
    check_whole_way(make(architecture, num_labels=3), tmp_path, recipe="ptq-w4", holes=family != "bart")


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("RobertaForMaskedLM", "fill-mask"),
        pytest.param("BertForQuestionAnswering", None, marks=pytest.mark.slow),
        pytest.param("DistilBertForTokenClassification", None, marks=pytest.mark.slow),
        pytest.param("AlbertForMaskedLM", "fill-mask", marks=pytest.mark.slow),
        pytest.param("ElectraForMaskedLM", "fill-mask", marks=pytest.mark.slow),
    ],
)
def test_heads_of_encoders(
    architecture: str,
    task: str | None,
    make_encoder: Callable[..., Path],
    make_bert_relative: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A masked language model has its table of words once, with the bias of its head beside it."""
    make = make_bert_relative if architecture.startswith("Distil") else make_encoder
    narrow = {"embedding_size": 24} if architecture[0] in "AE" else {}
    check_whole_way(make(architecture, **narrow), tmp_path, recipe="ptq-w4", task=task)


DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"num_attention_heads": 6, "head_dim": 10, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "opt": ("OPTForCausalLM", {}),
    "gpt-neox": ("GPTNeoXForCausalLM", {"rotary_pct": 0.4}),
    "gpt2": ("GPT2LMHeadModel", {"activation_function": "silu", "scale_attn_by_inverse_layer_idx": True}),
}
PROMPTS = [[5, 80, 200, 17, 45, 6, 99, 3], [9], [30, 31] * 8]


@pytest.fixture
def decoder(request: pytest.FixtureRequest) -> Path:
    """A float checkpoint of the family that the test is for."""
    architecture, config = DECODERS[request.param]
    make = request.getfixturevalue("make_gpt2" if architecture.startswith("GPT2") else "make_decoder")
    folder: Path = make(architecture, **config)
    return folder


def generate_everywhere(checkpoint: Path, out: Path, *, cache: str) -> list[Any]:
    """Returns greedy tokens of several prompts at once with their logits, which are the same bits on every target."""
    edgeq.export_onnx(checkpoint, out / "onnx", cache=cache)
    texts = []
    for name in TARGETS:
        edgeq.compile_bundle(out / "onnx", out / name, target=load_target(name), context=32)
        options = {"max_new_tokens": 12, "ignore_end": True, "keep_logits": True}
        texts.append(edgeq.load(out / name).generate(PROMPTS, **options).results())
    for other in texts[1:]:
        for found, expected in zip(other, texts[0], strict=True):
            assert found.ids == expected.ids
            np.testing.assert_array_equal(found.logits, expected.logits)
    return list(texts[0])


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS, indirect=True)
def test_decoders_compute_what_pytorch_computes(decoder: Path, tmp_path: Path) -> None:
    """Float activations and a float32 cache, in which no number has a neighbour that is a whole step away."""
    edgeq.compress_model(decoder, tmp_path / "checkpoint", recipe="ptq-w4")
    made = generate_everywhere(tmp_path / "checkpoint", tmp_path, cache="float32")
    loaded = load_checkpoint(tmp_path / "checkpoint")
    reference = TorchDecoder(loaded.model, loaded.adapter, cache_dtype=torch.float32)
    for prompt, text in zip(PROMPTS, made, strict=True):
        ids = np.array([[*prompt, *map(int, text.ids)]])
        mask = np.ones_like(ids)
        logits = reference(ids, mask, positions(mask, queries=ids.shape[1]))["logits"][0]
        np.testing.assert_allclose(text.logits, logits[len(prompt) - 1 : -1], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS, indirect=True)
def test_decoders_with_an_int8_cache(decoder: Path, tmp_path: Path) -> None:
    """Float activations; a prompt gives the same bits alone and in a batch, and nearly what PyTorch gives."""
    edgeq.compress_model(decoder, tmp_path / "checkpoint", recipe="ptq-w4")
    made = generate_everywhere(tmp_path / "checkpoint", tmp_path, cache="int8")
    bundle = edgeq.load(tmp_path / TARGETS[0])
    assert {spec.dtype for spec in bundle.manifest.state} == {"int8"}
    loaded = load_checkpoint(tmp_path / "checkpoint")
    reference = TorchDecoder(loaded.model, loaded.adapter, cache_dtype=torch.int8)
    errors, wanted = [], []
    for prompt, text in zip(PROMPTS, made, strict=True):
        [alone] = bundle.generate([prompt], max_new_tokens=12, ignore_end=True, keep_logits=True).results()
        np.testing.assert_array_equal(alone.logits, text.logits)
        ids = np.array([[*prompt, *map(int, text.ids)]])
        mask = np.ones_like(ids)
        wanted.append(reference(ids, mask, positions(mask, queries=ids.shape[1]))["logits"][0, len(prompt) - 1 : -1])
        errors.append(text.logits - wanted[-1])
    # A number at an edge of the grid may fall to either side: a step of one column of one head.
    assert np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 5e-3 * np.sqrt(np.mean(np.concatenate(wanted) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS, indirect=True)
def test_decoders_of_low_bit_activations(decoder: Path, tmp_path: Path) -> None:
    edgeq.compress_model(decoder, tmp_path / "checkpoint", recipe="ptq-w8a8")
    made = generate_everywhere(tmp_path / "checkpoint", tmp_path, cache="float16")
    assert [len(text.ids) for text in made] == [12, 12, 12]


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("decoder", "cache"),
    [("gpt-neox", "float16"), ("opt", "float16"), ("qwen2", "float16"), ("qwen2", "int8")],
    indirect=["decoder"],
)
def test_decoders_on_an_emulated_core(
    decoder: Path, cache: str, needs_core: Callable[[str], None], core: str, tmp_path: Path
) -> None:
    needs_core(core)
    edgeq.compress_model(decoder, tmp_path / "checkpoint", recipe="ptq-w8a8")
    board, host = bundles(tmp_path, core, cache=cache)
    options = {"max_new_tokens": 12, "ignore_end": True}
    expected = [result.ids for result in edgeq.load(host).generate(PROMPTS, **options).results()]
    assert emulator.generate(board, PROMPTS, batch=2, **options) == expected
