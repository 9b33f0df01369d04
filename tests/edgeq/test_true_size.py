"""Models of true size in a few bits, scales and all else included.

Recipes that train are counted from shapes alone, without any weight; the slow tests write files of random ones.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

import edgeq
from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.compress import compress_model
from edgeq.formats.low_bit import PackedMatrix
from edgeq.ledger import Ledger, ledger
from edgeq.models import TorchDecoder, TorchPart, adapter_for
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.trainable import freeze, make_trainable
from edgeq.recipes import load_recipe
from edgeq.recipes.apply import compression_result, plan_layers
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.targets.builtin.target import load_target

MIB = 2**20
GPT2_SMALL = {
    "vocab_size": 50257,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
}
BART_BASE = {
    "vocab_size": 50265,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "max_position_embeddings": 1024,
}
BERT_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
BERT_BASE_FLOAT = 437_935_112
"""Bytes of BERT-base with a classifier of two labels in float32."""
POOLER_TOO = """
extends = "xtc-l5-w1a8"
name = "xtc-l5-w1a8-pooler"
summary = "the pooler is binary, too"

[[override]]
pattern = '(bert\\.)?pooler\\.dense'
bits = 1
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a model: as float32, stored, and as papers count (codes of matrices alone)."""

    float32: int
    stored: int
    codes: int


def _sizes(model: torch.nn.Module, recipe: str | Path) -> Sizes:
    plans = [plan for plan in plan_layers(load_recipe(recipe), adapter_for(model)) if plan.grid is not None]
    stored = codes = 0
    for plan in plans:
        if plan.tied_to is None:
            rows, columns = weight_rows(model.get_submodule(plan.name)).shape
            matrix = PackedMatrix(rows, columns, plan.grid.bits, plan.grid.zero_point, rows if plan.per_row else 1)
            stored += matrix.packed_bytes + matrix.scale_bytes
            codes += matrix.code_bits // 8
    low_bit = {f"{plan.name}.weight" for plan in plans}
    floats = {name: parameter for name, parameter in model.named_parameters() if name not in low_bit}
    return Sizes(
        float32=sum(4 * parameter.numel() for parameter in model.parameters()),
        stored=stored + sum(4 * parameter.numel() for parameter in floats.values()),
        codes=codes,
    )


@pytest.fixture(scope="module")
def gpt2_small() -> torch.nn.Module:
    with torch.device("meta"):
        return transformers.GPT2LMHeadModel(transformers.GPT2Config())


def _bert(layers: int = 12) -> torch.nn.Module:
    with torch.device("meta"):
        return transformers.BertForSequenceClassification(transformers.BertConfig(num_hidden_layers=layers))


@pytest.mark.parametrize(("bits", "mib"), [(8, 121.5), (4, 62.6), (2, 33.1)])
def test_quantgpt_sizes(gpt2_small: torch.nn.Module, bits: int, mib: float) -> None:
    for method in ("", "-pact", "-lsq", "-laq"):
        sizes = _sizes(gpt2_small, f"quantgpt-w{bits}e{bits}a8{method}")
        assert sizes.float32 / MIB == pytest.approx(474.7, abs=0.1)
        assert sizes.stored / MIB == pytest.approx(mib, abs=0.1)
    if bits == 2:
        assert sizes.float32 / sizes.stored >= 14.3


def test_quantbart_sizes() -> None:
    with torch.device("meta"):
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART_BASE))
    sizes = _sizes(model, "quantgpt-w2e2a8")
    assert sizes.stored / MIB == pytest.approx(39.61, abs=0.01)
    assert sizes.float32 / sizes.stored >= 13.3


def test_two_stage_binary_bert_is_thirty_times_smaller() -> None:
    sizes = _sizes(_bert(), "two-stage-w1a8")
    assert sizes.float32 / MIB == pytest.approx(417.6, abs=0.1)
    assert sizes.float32 / sizes.stored >= 30
    # The paper's 31x: no scales, no padding, but biases and layer norms.
    assert sizes.stored - sizes.codes < 0.6 * MIB


def test_xtc_with_five_layers(tmp_path: Path) -> None:
    float32 = _sizes(_bert(), "xtc-l12-w1a8").float32
    student = _bert(len(load_recipe("xtc-l5-w1a8").layers.keep))
    as_published = _sizes(student, "xtc-l5-w1a8")
    assert float32 / as_published.stored >= 37
    (tmp_path / "recipe.toml").write_text(POOLER_TOO)
    pooler_too = _sizes(student, tmp_path / "recipe.toml")
    assert float32 / pooler_too.stored >= 46
    # 50x and more appear only where positions, biases and norms are not counted.
    assert float32 / pooler_too.codes > 58


def _frozen_at_once(source: Path, recipe_name: str | Path, out: Path) -> Ledger:
    """Stores a model as a recipe that trains would, without a step of training."""
    recipe, checkpoint = load_recipe(recipe_name), load_checkpoint(source)
    model, adapter = checkpoint.model, checkpoint.adapter
    if recipe.layers is not None:
        model, adapter = reduce_layers(model, adapter, kept_layers(recipe.layers, adapter))
    make_trainable(model, plan_layers(recipe, adapter))
    result = compression_result(model, recipe, adapter, freeze(model))
    save_checkpoint(model, checkpoint.tokenizer, out, result=result, settings_from=source)
    return ledger(out)


def _exported(checkpoint: Path, out: Path) -> Ledger:
    edgeq.export_onnx(checkpoint, out)
    return ledger(out)


@pytest.mark.slow
def test_quantgpt_2_2_8_in_every_file(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    sizes = _frozen_at_once(make_gpt2(**GPT2_SMALL), "quantgpt-w2e2a8", tmp_path / "checkpoint")
    assert sizes.float32_bytes / sizes.tensor_file_bytes >= 14.3
    for files in (sizes, _exported(tmp_path / "checkpoint", tmp_path / "onnx")):
        assert sizes.float32_bytes / files.stored_bytes >= 14.3
    # Beside the file's bytes the ledger shows those of the codes and float tables alone.
    assert sizes.paper_bytes < sizes.stored_bytes < sizes.folder_bytes


@pytest.mark.slow
def test_quantbart_2_2_8_in_every_file(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    sizes = _frozen_at_once(make_bart(**BART_BASE), "quantgpt-w2e2a8", tmp_path / "checkpoint")
    assert sizes.float32_bytes / sizes.tensor_file_bytes >= 13.3
    for files in (sizes, _exported(tmp_path / "checkpoint", tmp_path / "onnx")):
        assert sizes.float32_bytes / files.stored_bytes >= 13.3


@pytest.mark.slow
def test_binary_bert_base_in_every_file(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForSequenceClassification", **BERT_BASE)
    sizes = _frozen_at_once(source, "two-stage-w1a8", tmp_path / "two-stage")
    assert sizes.float32_bytes == BERT_BASE_FLOAT
    for files in (sizes, _exported(tmp_path / "two-stage", tmp_path / "two-stage-onnx")):
        assert BERT_BASE_FLOAT / files.stored_bytes >= 30
    assert sizes.paper_ratio > 31.5
    (tmp_path / "recipe.toml").write_text(POOLER_TOO)
    for recipe, least in (("xtc-l5-w1a8", 37), (tmp_path / "recipe.toml", 46)):
        out = tmp_path / f"xtc-{least}"
        sizes = _frozen_at_once(source, recipe, out)
        assert BERT_BASE_FLOAT / sizes.stored_bytes >= least
        assert BERT_BASE_FLOAT / _exported(out, tmp_path / f"xtc-{least}-onnx").stored_bytes >= least
    edgeq.compile_bundle(tmp_path / "xtc-46-onnx", tmp_path / "bundle", target=load_target("host"))
    assert BERT_BASE_FLOAT / ledger(tmp_path / "bundle").stored_bytes >= 46
    # weights.bin, where tensors start at multiples of 64 bytes
    assert BERT_BASE_FLOAT / ledger(tmp_path / "bundle").tensor_file_bytes >= 46


@pytest.mark.slow
def test_gpt2_small_at_2_2_8(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    compress_model(make_gpt2(**GPT2_SMALL), tmp_path / "out", recipe="ptq-w2e2a8")
    sizes = ledger(tmp_path / "out")
    assert sizes.float32_bytes / MIB == pytest.approx(474.7, abs=0.1)
    assert sizes.stored_bytes <= 33.19 * MIB
    # The file adds its header, which names and places the tensors.
    assert sizes.tensor_file_bytes - sizes.stored_bytes < 0.03 * MIB
    checkpoint = load_checkpoint(tmp_path / "out")
    scores = TorchDecoder(checkpoint.model, checkpoint.adapter).score(torch.arange(1, 9)[None].numpy())
    assert scores.shape == (1, 7)
    assert (scores < 0).all()


@pytest.mark.slow
def test_bart_base_at_2_2_8(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    compress_model(make_bart(**BART_BASE), tmp_path / "out", recipe="ptq-w2e2a8")
    sizes = ledger(tmp_path / "out")
    assert sizes.float32_bytes / MIB == pytest.approx(531.8, abs=0.1)
    assert sizes.stored_bytes <= 39.7 * MIB
    assert sizes.tensor_file_bytes - sizes.stored_bytes < 0.05 * MIB
    checkpoint = load_checkpoint(tmp_path / "out")
    ids = torch.arange(1, 9)[None].numpy()
    ones = ids * 0 + 1
    encoder, first, _ = map(TorchPart, checkpoint.adapter.export_parts(checkpoint.model))
    states = encoder(input_ids=ids, attention_mask=ones)["last_hidden_state"]
    outputs = first(encoder_attention_mask=ones, input_ids=ids[:, :1], encoder_hidden_states=states)
    assert outputs["logits"].shape == (1, 1, 50265)
