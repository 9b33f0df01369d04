"""Int8 attention through the parity rules: alone, end to end, layer by layer, and with faults."""

import dataclasses

import numpy as np
import onnx
import pytest

from edgeq.backends.compiled import compiled_once
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError
from edgeq.export.exporter import export_onnx
from edgeq.ledger import ledger, summary_line
from edgeq.parity import diff_layers, run_parity
from edgeq.parity.reference import Reference, quantized_values_of_a_token
from edgeq.parity.rules.isolated import check_isolated
from edgeq.parity.rules.isolated_attention import allowed_attention, isolate_attention
from edgeq.targets.builtin.target import load_target

NAMES = ["encoder.layer.0.attention.self.int8", "encoder.layer.1.attention.self.int8"]


@pytest.fixture(scope="module")
def run(make_bert, make_once):
    """A run of a BERT with int8 attention, without bundles."""
    source = make_bert(seed=7, hidden_size=45, num_attention_heads=3)

    def fill(folder):
        recipe = folder / "recipe.toml"
        recipe.write_text('extends = "ptq-w8a8"\nname = "int8-attention"\n[activations]\nattention = "int8"\n')
        compress_model(source, folder / "checkpoint", recipe=recipe)
        export_onnx(folder / "checkpoint", folder / "onnx")

    return make_once("bert-int8-attention", fill)


@pytest.fixture(scope="module")
def reference(run):
    return Reference(load_checkpoint(run / "checkpoint"))


@pytest.fixture(scope="module")
def recorded(reference):
    ids = np.random.default_rng(0).integers(5, 80, (3, 19))
    mask = (np.arange(19) < np.array([19, 12, 1])[:, None]).astype(np.int64)
    return reference.record_attention({"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids})


def outputs_of(model, cases, run):
    found = run({name: value for case in cases for name, value in case.feed.items()})
    return [found[case.output_name] for case in cases]


def test_every_backend_is_within_the_bound(run, recorded):
    assert list(recorded) == NAMES
    model, cases = isolate_attention(onnx.load(run / "onnx" / "model.onnx"), recorded)
    limits = [allowed_attention(case.layer) for case in cases]
    assert sum(limit.proven for limit in limits) > 0.9 * sum(limit.exact.size for limit in limits)
    backends = [
        OnnxReference(model),
        OnnxRuntime(model.SerializeToString()),
        lambda feed: compiled_once(model, feed, target=load_target("host")),
    ]
    for results in [[case.layer.output for case in cases], *(outputs_of(model, cases, one) for one in backends)]:
        check = check_isolated("stage", cases, limits, results)
        assert check.passed, check.detail
        wrong = [results[0].copy(), results[1]]
        wrong[0][1, 3, 7] += 2 * limits[0].bound[1, 3, 7]
        refused = check_isolated("stage", cases, limits, wrong)
        assert not refused.passed
        assert f"first {NAMES[0]}" in refused.detail


def test_a_graph_with_another_factor_or_without_the_operator_is_found(run, recorded):
    graph = onnx.load(run / "onnx" / "model.onnx")
    nodes = [node for node in graph.graph.node if node.op_type == "Int8Attention"]
    next(attribute for attribute in nodes[1].attribute if attribute.name == "scale").f *= 1.01
    model, cases = isolate_attention(graph, recorded)
    results = outputs_of(model, cases, OnnxReference(model))
    check = check_isolated("stage", cases, [allowed_attention(case.layer) for case in cases], results)
    assert not check.passed
    assert f"first {NAMES[1]}" in check.detail
    graph.graph.node.remove(nodes[0])
    with pytest.raises(FormatError, match=f"attention {NAMES[0]} is int8 in only one of"):
        isolate_attention(graph, recorded)


def test_a_whole_run_passes_every_rule(run, reference):
    report = run_parity(run)
    assert report.passed, report.first_breach
    found = {(check.stage, check.rule) for check in report.checks}
    stages = ("torch compressed", "onnx reference", "onnxruntime")
    assert {(f"{stage} attention", "isolated") for stage in stages} <= found
    model = reference.checkpoint.model
    assert quantized_values_of_a_token(model) == 2 * (3 * 45 + 3 * 45 + 45 + 45 + 76) + 45  # and the pooler


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("tvm", marks=pytest.mark.slow)])
def test_diff_judges_attention_as_a_layer(run, backend):
    [found] = diff_layers(run, backends=[backend])
    assert found.first is None, found.first
    assert [step.name for step in found.steps if step.operators == ("Int8Attention",)] == NAMES


def test_the_ledger_counts_it(run):
    for part in ("checkpoint", "onnx"):
        book = ledger(run / part)
        assert book.int8_attention == 2
        assert summary_line(book).endswith("; attention of 2 layers in int8")
    assert dataclasses.replace(ledger(run / "checkpoint"), int8_attention=0).to_json()["int8_attention"] == 0
