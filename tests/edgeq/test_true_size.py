"""What recipes that train store at true size, counted from shapes alone: no weight exists here."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

from edgeq.formats import PackedMatrix
from edgeq.models import adapter_for
from edgeq.quant.float_layers import weight_rows
from edgeq.recipes import load_recipe
from edgeq.recipes.apply import plan_layers

MIB = 2**20
BART_BASE = {
    "vocab_size": 50265,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}
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
