"""Factorised models as graphs: no dense matrix, no Einsum, and the same numbers in every backend."""

import collections
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgeq
from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.factor.apply import factorise
from edgeq.factor.kinds.kronecker import KroneckerSettings, KroneckerShape
from edgeq.factor.kinds.low_rank import LowRankSettings
from edgeq.factor.kinds.tucker import TuckerSettings
from edgeq.factor.names import layer_names
from edgeq.factor.prepare import prepare_for_packing
from edgeq.models import adapter_for
from edgeq.parity.run import run_parity
from edgeq.quant.apply import apply_plans
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import CompressionResult, LayerPlan
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.passes import run_passes

HALVED = dict.fromkeys(("attention", "expand", "contract"), KroneckerShape(right=(1, 2)))
WIDER = {
    "attention": KroneckerShape(right=(2, 2), terms=2),
    "expand": KroneckerShape(left=(4, 2)),
    "contract": KroneckerShape(left=(2, 4)),
}
SETTINGS = {
    "kngpt2": KroneckerSettings(HALVED, "odd", 2),  # type: ignore[arg-type]
    "kronecker": KroneckerSettings(WIDER, "all", 4),  # type: ignore[arg-type]
    "iii": TuckerSettings(8),
    "iv": TuckerSettings(20, cores=5),
    "low-rank": LowRankSettings(8),
    "low-rank-gpt2": LowRankSettings(8),
}
DECODERS = ("kngpt2", "low-rank-gpt2")


def _checkpoint(source: Path, name: str, out: Path, *, bits: int, fold: bool, evaluate: Any) -> Path:
    checkpoint = load_checkpoint(source)
    model = checkpoint.model
    factorise(model, checkpoint.adapter, SETTINGS[name])
    records = []
    if bits:
        prepare_for_packing(model, fold=fold, tokens=128)
        records = apply_plans(model, _plans(model, bits))
    result = CompressionResult("mine", "0" * 64, records)
    save_checkpoint(model, checkpoint.tokenizer, out / "checkpoint", result=result, evaluate=evaluate)
    edgeq.export_onnx(out / "checkpoint", out / "onnx")
    return out / "onnx" / "model.onnx"


def _plans(model: Any, bits: int) -> list[LayerPlan]:
    names = layer_names(model, adapter_for(model))
    model.config.tie_word_embeddings = False
    plans = []
    for name in (*names.embeddings, *names.matrices, *names.linears):
        kind: Any = "linear" if name in names.linears else "embedding"
        grid = None if name in names.kept_float or "token_type" in name else grid_for(bits, None)
        activation: Any = "dynamic" if kind == "linear" and grid else "none"
        reason = None if grid else "small"
        tied = names.tied.get(name)
        plans.append(LayerPlan(name, kind, grid, activation=activation, keep_float_reason=reason, tied_to=tied))
    return plans


def _source(name: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path]) -> Path:
    if name in DECODERS:
        return make_gpt2(n_inner=72, n_positions=164, seed=3)
    return make_bert("BertForSequenceClassification", hidden_size=32, intermediate_size=128)


def _matrices(graph: onnx.GraphProto) -> list[tuple[str, tuple[int, ...]]]:
    return [(tensor.name, tuple(tensor.dims)) for tensor in graph.initializer if len(tensor.dims) > 1]


@pytest.mark.parametrize(("name", "evaluate"), [("kngpt2", "auto"), ("kronecker", "auto"), ("iii", "factored")])
def test_graphs_hold_factors_only(
    name: str, evaluate: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    source = _source(name, make_bert, make_gpt2)
    file = _checkpoint(source, name, tmp_path, bits=0, fold=False, evaluate=evaluate)
    graph = onnx.load(file).graph
    kinds = collections.Counter(node.op_type for node in graph.node)
    assert "Einsum" not in kinds
    assert "Shape" not in {node.op_type for node in graph.node if "encoder.layer" in node.name}
    width = 36 if name == "kngpt2" else 32
    inside = [(n, dims) for n, dims in _matrices(graph) if ".h.1." in n or "encoder.layer" in n]
    assert inside
    assert max(math.prod(dims) for _, dims in inside) < width * width * (2 if name == "kngpt2" else 1)


def test_shared_factors_are_multiplied_once_and_choices_folded(
    make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    """Queries, keys and values read the same product with U; the graph must not do it three times."""
    source = _source("iii", make_bert, make_gpt2)
    file = _checkpoint(source, "iii", tmp_path, bits=0, fold=False, evaluate="up")
    graph = onnx.load(file).graph
    queries = [node for node in graph.node if "layer.0.attention.self" in node.name and node.op_type == "MatMul"]
    assert len(queries) == 3
    assert len({node.input[0] for node in queries}) == 1


@pytest.mark.parametrize("bits", [0, 2])
def test_mixtures_of_cores_are_small_in_the_file_and_computed_by_the_compiler(
    bits: int, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    source = _source("iv", make_bert, make_gpt2)
    file = _checkpoint(source, "iv", tmp_path, bits=bits, fold=False, evaluate="factored" if not bits else "auto")
    model = onnx.load(file)
    cores = load_checkpoint(tmp_path / "checkpoint").model.bert.encoder.bank.core_matrices()
    layer = load_checkpoint(tmp_path / "checkpoint").model.bert.encoder.layer[1].output.dense
    if bits:
        tables = [n for n in model.graph.node if n.op_type == "LowBitEmbedding" and "cores" in n.name]
        assert len(tables) == 1  # decoded once for all layers
        assert cores.shape == (5, 400)
    run_passes(model.graph)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert not [n for n in model.graph.node if n.op_type == "MatMul" and all(i in constants for i in n.input)]
    assert not [n for n in model.graph.node if n.op_type == "LowBitEmbedding" and "cores" in n.name]
    wanted = layer.core_weight().detach().numpy().T
    found = [
        a if a.shape == wanted.shape else a.T for a in constants.values() if wanted.shape in (a.shape, a.shape[::-1])
    ]
    assert any(np.allclose(matrix, wanted, atol=1e-5) for matrix in found)


CASES = [
    *(("kngpt2", 0, False, "auto"), ("kngpt2", 4, False, "auto"), ("kronecker", 0, False, "auto")),
    *(("kronecker", 8, False, "auto"), ("iii", 0, False, "factored"), ("iii", 0, False, "auto")),
    *(("iii", 4, False, "auto"), ("iv", 0, False, "factored"), ("iv", 0, False, "auto")),
    *(("iv", 2, False, "auto"), ("iv", 8, True, "auto"), ("low-rank", 0, False, "auto")),
    *(("low-rank", 8, False, "auto"), ("low-rank-gpt2", 4, False, "auto")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bits", "fold", "evaluate"), CASES)
def test_parity_of_every_backend(
    name: str, bits: int, fold: bool, evaluate: str,
    make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    source = _source(name, make_bert, make_gpt2)
    _checkpoint(source, name, tmp_path, bits=bits, fold=fold, evaluate=evaluate)
    context = {"context": 150} if name in DECODERS else {}
    edgeq.compile_bundle(tmp_path / "onnx", tmp_path / "bundles" / "host", target=load_target("host"), **context)
    report = run_parity(tmp_path)
    stages = {check.stage for check in report.checks}
    assert any(stage.startswith("onnxruntime") for stage in stages)
    assert any(stage.startswith("tvm host") for stage in stages)
    assert report.passed, report.first_breach
