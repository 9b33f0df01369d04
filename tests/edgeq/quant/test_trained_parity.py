"""Every quantizer of training in one small model: trained, frozen, exported, compiled, and held to the parity rules."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.export.exporter import export_onnx
from edgeq.parity import run_parity
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.quantizers import QUANTIZERS
from edgeq.quant.trainable import freeze, make_trainable, trainable_layers
from edgeq.recipes import load_recipe
from edgeq.recipes.apply import compression_result

KINDS = [
    (method, bits, grid)
    for method, quantizer in QUANTIZERS.items()
    for bits in quantizer.supported_bits
    for grid in (quantizer.two_bit_grids if bits == 2 else (None,))
]
ACTIVATIONS = ["dynamic", "static", "none"]


def _plans(adapter, start: int) -> list[LayerPlan]:
    """Goes round all methods and bits, and round all kinds of activations, layer by layer."""
    kinds = itertools.islice(itertools.cycle(KINDS), start, None)
    plans = []
    for index, name in enumerate([*adapter.embedding_names, *adapter.linear_names]):
        kind = "embedding" if name in adapter.embedding_names else "linear"
        method, bits, grid = next(kinds)
        plans.append(
            LayerPlan(
                name,
                kind,
                grid_for(bits, grid),
                per_row=method != "uniform-asymmetric" and index % 2 == 0,
                activation=ACTIVATIONS[index % 3] if kind == "linear" else "none",
                method=method,
                static_method="lsq" if index % 2 else "pact",
            )
        )
    return plans


def _trained(source: Path, out: Path, *, start: int) -> dict[str, torch.Tensor]:
    """Trains a few steps, writes the compressed checkpoint, and returns the weights that training ended with."""
    checkpoint = load_checkpoint(source)
    model, adapter = checkpoint.model, checkpoint.adapter
    make_trainable(model, _plans(adapter, start))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(5, 80, (4, 9), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=ids).logits.square().mean().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        weights = {name: layer.decoded_weight() for name, layer in trainable_layers(model).items()}
    result = compression_result(model, load_recipe("ptq-w8a8"), adapter, freeze(model))
    save_checkpoint(model, checkpoint.tokenizer, out, result=result, settings_from=source)
    return weights


@pytest.fixture(params=[0, 17])
def run(request: pytest.FixtureRequest, make_bert: Callable[..., Path], tmp_path: Path) -> Path:
    source = make_bert("BertForSequenceClassification", num_labels=3)
    weights = _trained(source, tmp_path / "checkpoint", start=request.param)
    stored = load_checkpoint(tmp_path / "checkpoint").model
    for name, weight in weights.items():
        assert torch.equal(stored.get_submodule(name).dequantized(), weight), name
    export_onnx(tmp_path / "checkpoint", tmp_path / "onnx")
    return tmp_path


def test_the_stored_model_is_the_trained_one_in_onnx(run: Path) -> None:
    report = run_parity(run)
    assert report.passed, report.first_breach


@pytest.mark.slow
def test_the_stored_model_is_the_trained_one_on_this_machine(run: Path) -> None:
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.writer import compile_bundle

    compile_bundle(run / "onnx", run / "bundles" / "host", target=load_target("host"))
    report = run_parity(run)
    assert report.passed, report.first_breach
    assert any(check.rule == "bit-identical" for check in report.checks)
