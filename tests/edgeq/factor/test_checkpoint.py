"""Checkpoints of factorised models: round trips, headless loading, damage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.errors import FormatError
from edgeq.factor.apply import factorise
from edgeq.factor.evaluation import describe_choices
from edgeq.factor.insert import factor_specs
from edgeq.factor.kinds.kronecker import KroneckerSettings, KroneckerShape
from edgeq.factor.kinds.low_rank import LowRankSettings
from edgeq.factor.kinds.tucker import TuckerSettings
from edgeq.factor.names import layer_names
from edgeq.factor.prepare import prepare_for_packing
from edgeq.ledger import ledger
from edgeq.models import adapter_for
from edgeq.quant.apply import apply_plans
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import CompressionResult, LayerPlan

IDS = torch.arange(14).reshape(2, 7) + 5
HALVED = dict.fromkeys(("attention", "expand", "contract"), KroneckerShape(right=(1, 2)))
SETTINGS = {
    "iii": TuckerSettings(8),
    "iv": TuckerSettings(24, cores=5),
    "ii": LowRankSettings(6, sliced=True),
    "kronecker": KroneckerSettings(HALVED, "odd", 2),  # type: ignore[arg-type]
}


def packed_plans(model: Any, bits: int = 4) -> list[LayerPlan]:
    """A plan that packs every factor that can be packed."""
    names = layer_names(model, adapter_for(model))
    plans = {}
    kinds = [(n, "embedding") for n in (*names.embeddings, *names.matrices)] + [(n, "linear") for n in names.linears]
    for name, kind in kinds:
        grid = None if name in names.kept_float else grid_for(bits, None)
        activation = "dynamic" if kind == "linear" and grid else "none"
        plans[name] = LayerPlan(
            name, kind, grid, activation=activation, keep_float_reason=names.kept_float.get(name),
            tied_to=names.tied.get(name),
        )  # type: ignore[arg-type]  # fmt: skip
    return list(plans.values())


def logits(model: Any) -> torch.Tensor:
    """Logits, or states, of a fixed batch."""
    with torch.no_grad():
        first: torch.Tensor = model.eval()(input_ids=IDS)[0]
    return first


@pytest.fixture
def source(make_bert: Callable[..., Path], make_gpt2: Callable[..., Path]) -> Callable[[str], Path]:
    def make(family: str) -> Path:
        if family == "gpt2":
            return make_gpt2(n_inner=72)
        return make_bert("BertForSequenceClassification", intermediate_size=80)

    return make


def _saved(folder: Path, settings: Any, out: Path, *, bits: int = 0, fold: bool = False, evaluate: Any = "auto") -> Any:
    checkpoint = load_checkpoint(folder)
    factorise(checkpoint.model, checkpoint.adapter, settings)
    if bits:
        prepare_for_packing(checkpoint.model, fold=fold, tokens=128)
    records = apply_plans(checkpoint.model, packed_plans(checkpoint.model, bits)) if bits else []
    if bits:
        checkpoint.model.config.tie_word_embeddings = False
    result = CompressionResult("mine", "0" * 64, records)
    save_checkpoint(checkpoint.model, checkpoint.tokenizer, out, result=result, evaluate=evaluate)
    return checkpoint.model


@pytest.mark.parametrize(
    ("family", "name", "bits", "fold"),
    [
        *(("bert", name, 0, False) for name in SETTINGS), ("gpt2", "kronecker", 0, False),
        ("bert", "ii", 2, False), ("bert", "kronecker", 8, False), ("gpt2", "kronecker", 4, False),
        ("bert", "iii", 4, False), ("bert", "iv", 4, False), ("bert", "iv", 8, True), ("bert", "iii", 2, True),
    ],
)  # fmt: skip
def test_round_trip_is_exact(
    family: str, name: str, bits: int, fold: bool, source: Callable[[str], Path], tmp_path: Path
) -> None:
    model = _saved(source(family), SETTINGS[name], tmp_path / "out", bits=bits, fold=fold)
    auto = transformers.AutoModelForSequenceClassification if family == "bert" else transformers.AutoModelForCausalLM
    assert torch.equal(logits(auto.from_pretrained(tmp_path / "out")), logits(model))
    loaded = load_checkpoint(tmp_path / "out")
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-5)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < (
        source(family) / "model.safetensors"
    ).stat().st_size


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ["iii", "iv"])
def test_getting_ready_for_packing_keeps_the_function(name: str, fold: bool, source: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(source("bert"))
    model = checkpoint.model
    factorise(model, checkpoint.adapter, SETTINGS[name])
    expected, before = logits(model), sum(p.numel() for p in model.parameters())
    prepare_for_packing(model, fold=fold, tokens=128)
    assert torch.allclose(logits(model), expected, atol=1e-4)
    bank = model.bert.encoder.bank
    assert bank.spec.factors == ("left_down", "right_up", "right_down", *(() if fold else ("left_up",)))
    assert (bank.cores is None) == (fold or name == "iii")
    assert sum(p.numel() for p in model.parameters()) == before + _difference(name, fold)


def _difference(name: str, fold: bool) -> int:
    """Untied factors are stored twice; a folded slice is D x d where it was d x d, or a row of the mixture."""
    width, rank = 40, SETTINGS[name].rank
    if not fold:
        return 2 * width * rank
    slices = 2 * (4 + 2 * 2)
    before = slices * rank**2 if name == "iii" else slices * 5 + 5 * rank**2
    return slices * width * rank - before + width * rank


def test_the_body_alone_loads(source: Callable[[str], Path], tmp_path: Path) -> None:
    model = _saved(source("gpt2"), SETTINGS["kronecker"], tmp_path / "gpt2")
    body = transformers.AutoModel.from_pretrained(tmp_path / "gpt2")
    assert torch.equal(logits(body), logits(model.transformer))
    model = _saved(source("bert"), SETTINGS["iv"], tmp_path / "bert")
    body = transformers.AutoModel.from_pretrained(tmp_path / "bert")
    assert torch.equal(logits(body), logits(model.bert))
    assert "encoder.bank" in factor_specs(body)


@pytest.mark.parametrize("evaluate", ["factored", "up", "down", "dense"])
def test_the_recipe_can_force_how_layers_are_computed(
    evaluate: str, source: Callable[[str], Path], tmp_path: Path
) -> None:
    model = _saved(source("bert"), SETTINGS["iv"], tmp_path / "out", evaluate=evaluate)
    loaded = load_checkpoint(tmp_path / "out")
    assert {choice.evaluation for choice in loaded.choices} == {evaluate}
    assert all(choice.forced for choice in loaded.choices)
    folds = {getattr(spec, "fold", "") for spec in factor_specs(loaded.model).values()} - {""}
    assert folds == ({"none"} if evaluate == "factored" else {evaluate} if evaluate != "dense" else set())
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-4)
    lines = describe_choices(loaded.choices)
    assert len(lines) == 4  # queries, keys and values; the attention's output; both of the feed-forward layer
    assert all(f"computed {evaluate} (no choice); factored" in line for line in lines)
    assert "query and 5 more" in lines[0]


def _damage(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values["quantization_config"]["factors"])
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(layers=[]), "'factors' should hold 'layers'"),
        (lambda f: f.update(evaluate="fast"), "'evaluate' of 'factors' should be one of auto, factored"),
        (lambda f: f["layers"]["bert.encoder.bank"].update(rank="8"), "entry of factorised layer 'bert.encoder.bank'"),
        (lambda f: f["layers"]["bert.encoder.bank"].update(kind="magic"), "entry of factorised layer"),
        (lambda f: f["layers"]["bert.encoder.bank"].update(rank=9), "should be a bank of width 40 and rank 8"),
        (lambda f: f["layers"].pop("bert.encoder.bank"), "bank"),
        (lambda f: f["layers"].update(nothing=f["layers"]["bert.encoder.layer.0.output.dense"]), "no layer 'nothing'"),
        (lambda f: f["layers"]["bert.encoder.layer.0.output.dense"].update(grid=[1, 3]), "be a factorised linear"),
        (lambda f: f["layers"]["bert.encoder.layer.0.output.dense"].update(fold="sideways"), "makes no sense"),
    ],
)  # fmt: skip
def test_damaged_descriptions_are_refused(
    change: Callable[[dict[str, Any]], object], message: str, source: Callable[[str], Path], tmp_path: Path
) -> None:
    _saved(source("bert"), SETTINGS["iii"], tmp_path / "out")
    _damage(tmp_path / "out", change)
    with pytest.raises(FormatError, match=message):
        load_checkpoint(tmp_path / "out")


def test_missing_factors_are_refused(source: Callable[[str], Path], tmp_path: Path) -> None:
    _saved(source("bert"), SETTINGS["iv"], tmp_path / "out")
    _damage(tmp_path / "out", lambda f: f["layers"]["bert.encoder.bank"].update(cores=16, rank=24))
    with pytest.raises(FormatError):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(("family", "name", "bits"), [("bert", "iv", 0), ("gpt2", "kronecker", 4)])
def test_the_ledger_compares_with_the_dense_model(
    family: str, name: str, bits: int, source: Callable[[str], Path], tmp_path: Path
) -> None:
    model = _saved(source(family), SETTINGS[name], tmp_path / "out", bits=bits)
    dense, book = ledger(source(family)), ledger(tmp_path / "out")
    # Biases count on both sides; the vectors beside a factorised table and the mixture of cores are no dense weights.
    assert book.float32_bytes == pytest.approx(dense.float32_bytes, abs=8 * 40)
    assert book.stored_bytes < dense.stored_bytes
    assert book.is_compressed
    if not bits:
        assert book.weights == sum(parameter.numel() for parameter in model.parameters())
        reasons = {row.tensor: row.reason for row in book.rows}
        assert reasons["bert.encoder.bank.cores.weight"] == "a factor, or a product of factors"
