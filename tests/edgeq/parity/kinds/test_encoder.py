"""Whole parity runs on small models: right ones pass, and a fault is named where it lies."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.backends import onnx_reference
from edgeq.backends.bundles import BundleAccess
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.parity import run_parity
from edgeq.parity.kinds.encoder import EncoderParity
from tests.edgeq.runs import change_tensor, edit_graphs, verdicts, write_record


def make_run(folder, checkpoint):
    shutil.copytree(checkpoint, folder / "checkpoint")
    export_onnx(folder / "checkpoint", folder / "onnx")
    return folder


@pytest.fixture(scope="session")
def good_run(float_checkpoint, compressed_checkpoint, compressed_onnx, exported, make_bert, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "good"
    shutil.copytree(compressed_checkpoint, run / "checkpoint")
    shutil.copytree(compressed_onnx.parent, run / "onnx")
    shutil.copytree(exported(make_bert, None) / "onnx", run / "float-onnx")
    write_record(run, source=float_checkpoint)
    return run


def scale(run, name, factor):
    edit_graphs(run, lambda models: change_tensor(models["model"], name, lambda values: values * factor))


def test_a_right_run_passes_every_rule_and_is_json(good_run):
    stages = []
    report = run_parity(good_run, progress=lambda what, done, total: stages.append((what, done, total)))
    assert report.passed, report.first_breach
    assert set(verdicts(report)) == {
        ("torch compressed", "distance"),
        ("torch compressed", "isolated"),
        ("onnxruntime float32", "end-to-end"),
        *((stage, rule) for stage in ("onnx reference", "onnxruntime") for rule in ("isolated", "end-to-end", "task")),
    }
    values = json.loads(json.dumps(report.to_json()))
    assert values["passed"] is True
    assert {shape[0] for shape in values["conditions"]["feeds"]} >= {1, 3}
    assert values["conditions"]["noise_runs"] >= 8
    assert values["conditions"]["not_checked"] == [
        "tvm: the run holds no bundle",
        "meaning: this machine runs no bundle of the run",
    ]
    assert stages[0] == ("parity: PyTorch", 0, 6)
    assert stages[-1][1:] == (6, 6)


def test_a_damaged_scale_is_found_alone_and_named(copied_run):
    layer = "encoder.layer.1.intermediate.dense"
    scale(copied_run, f"{layer}.scale", np.float32(1.001))
    report = run_parity(copied_run)
    assert report.first_breach.stage == "onnx reference"
    assert report.first_breach.rule == "isolated"
    assert f"first {layer}" in report.first_breach.detail
    assert verdicts(report)["torch compressed", "isolated"]
    assert not verdicts(report)["onnxruntime", "isolated"]


def test_a_fault_between_the_operators_breaks_end_to_end_only(copied_run):
    scale(copied_run, "encoder.layer.0.output.LayerNorm.weight", 1.05)
    report = run_parity(copied_run)
    assert report.first_breach.rule == "end-to-end"
    assert report.first_breach.stage == "onnx reference"
    found = verdicts(report)
    assert found["onnx reference", "isolated"]
    assert not found["onnxruntime", "end-to-end"]


@pytest.fixture
def run_with_source(good_run, float_checkpoint, tmp_path):
    run = tmp_path / "with-source"
    shutil.copytree(good_run, run)
    write_record(run, source=float_checkpoint)
    return run


def float_baseline(report):
    return verdicts(report)["onnxruntime float32", "end-to-end"]


def test_the_float_baseline_may_be_as_far_from_pytorch_as_pytorch_is_from_float64(run_with_source, monkeypatch):
    """As with all-mpnet-base-v2, whose PyTorch is further from float64 than ONNX Runtime is."""
    exact = torch.nn.LayerNorm.forward

    def rounds_more(self, value):
        found = exact(self, value)
        return found * (1 + 2e-6) if found.dtype == torch.float32 else found

    monkeypatch.setattr(torch.nn.LayerNorm, "forward", rounds_more)
    assert float_baseline(run_parity(run_with_source))
    monkeypatch.setattr(EncoderParity, "runs_in_float64", False)
    assert not float_baseline(run_parity(run_with_source))


def test_a_fault_of_the_float_baseline_is_found(run_with_source):
    file = run_with_source / "float-onnx" / "model.onnx"
    model = onnx.load(file)
    change_tensor(model, "encoder.layer.1.output.LayerNorm.weight", lambda values: values * np.float32(1 + 2e-6))
    onnx.save(model, file)
    assert not float_baseline(run_parity(run_with_source))


def test_a_layer_that_fell_back_to_float_is_an_error(copied_run):
    def replace(models):
        model = models["model"]
        node = next(n for n in model.graph.node if n.name == "encoder.layer.0.output.dense/LowBitLinear")
        matrix = numpy_helper.from_array(np.zeros((76, 40), np.float32), "dense")
        model.graph.initializer.append(matrix)
        node.op_type, node.domain, node.overload = "MatMul", "", ""
        del node.attribute[:], node.input[1:]
        node.input.append("dense")

    edit_graphs(copied_run, replace)
    with pytest.raises(UnsupportedError, match=r"encoder\.layer\.0\.output\.dense .* computes it by MatMul"):
        run_parity(copied_run)


def test_weight_only_models_are_held_to_float_noise(make_bert, tmp_path):
    source = make_bert(num_hidden_layers=1)
    compress_model(source, tmp_path / "checkpoint", recipe="ptq-w4")
    run = make_run(tmp_path / "run", tmp_path / "checkpoint")
    report = run_parity(run)
    assert report.passed, report.first_breach
    limit = next(c for c in report.checks if c.stage == "onnxruntime" and c.rule == "end-to-end").measured["rms_limit"]
    assert limit < 1e-5  # nothing is quantized on the way, so no step may hide behind the envelope


def test_the_evaluator_is_given_the_right_overload():
    def function(overload, operator):
        node = helper.make_node(operator, ["x"], ["y"])
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_function("test", "F", ["x"], ["y"], [node], opsets, overload=overload)

    nodes = [helper.make_node("F", ["x"], [name], domain="test", overload=name) for name in ("Neg", "Abs")]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "Neg", "Abs")]
    model = helper.make_model(
        helper.make_graph(nodes, "test", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("test", 1)],
        functions=[function("Abs", "Abs"), function("Neg", "Neg")],
        ir_version=10,
    )
    outputs = OnnxReference(model)({"x": np.array([-3.0], np.float32)})
    assert (outputs["Neg"][0], outputs["Abs"][0]) == (3.0, 3.0)
    outputs = OnnxReference(model)({"x": np.array([2.0], np.float32)})
    assert (outputs["Neg"][0], outputs["Abs"][0]) == (-2.0, 2.0)


def test_what_saves_memory_changes_no_bit(compressed_onnx, monkeypatch):
    """Graphs that are evaluated in parts, and weights that are decoded in each call."""
    monkeypatch.setattr(onnx_reference, "_NODES_OF_A_PART", 5)
    model = onnx.load(compressed_onnx)
    ids = np.arange(3, 17).reshape(2, 7)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed = {value.name: feed[value.name] for value in model.graph.input}
    whole = ReferenceEvaluator(onnx_reference._without_overloads(model)).run(None, feed)
    parts = OnnxReference(model)
    assert len(parts._evaluators) > 5
    decoded, once = OnnxRuntime(compressed_onnx, lean=True), OnnxRuntime(compressed_onnx)
    for number, value in enumerate(model.graph.output):
        assert np.array_equal(parts(feed)[value.name], whole[number])
        assert np.array_equal(decoded(feed)[value.name], once(feed)[value.name])


def test_classifiers_are_judged_by_their_labels(make_bert, tmp_path):
    source = make_bert("BertForSequenceClassification", num_labels=3, num_hidden_layers=1)
    compress_model(source, tmp_path / "checkpoint", recipe="ptq-w8a8")
    report = run_parity(make_run(tmp_path / "run", tmp_path / "checkpoint"))
    assert report.passed, report.first_breach
    assert any(check.rule == "task" and check.measured["texts"] == 48 for check in report.checks)


class StandIn(BundleAccess):
    """Stands in for compiled bundles: ONNX Runtime computes, and faults are added."""

    def __init__(self, run, *, wrong=(), native=("host",)):
        self.runtime = OnnxRuntime(run / "onnx" / "model.onnx")
        self.wrong, self.native = wrong, native
        for name in ("host", "cortex-a72"):
            (run / "bundles" / name).mkdir(parents=True)
            (run / "bundles" / name / "manifest.json").write_text("{}")

    def is_native(self, bundle):
        return bundle.name in self.native

    def load(self, bundle, *, threads, verify=True):
        return Loaded(self, f"{threads} threads")

    def compile_and_run(self, graph, feed, *, bundle):
        return OnnxRuntime(graph.SerializeToString())(feed)

    def emulate(self, bundle, target=None):
        return lambda feed: self.compute(feed, bundle.name)

    def compute(self, feed, who):
        outputs = {name: value.copy() for name, value in self.runtime(feed).items()}
        alone = who == "2 threads" and len(feed["input_ids"]) == 1
        if who in self.wrong or (alone and "alone" in self.wrong):
            value = outputs["last_hidden_state"]
            value[0, 0, 0] = np.nextafter(value[0, 0, 0], np.float32(9))
        return outputs


class Loaded:
    def __init__(self, backends, who):
        self.backends, self.who = backends, who

    def run(self, feed):
        return self.backends.compute(feed, self.who)


def bundle_report(run, **options):
    return run_parity(run, access=StandIn(run, **options))


def broken(report):
    return {(check.stage, check.rule) for check in report.checks if not check.passed}


def test_bundles_are_held_to_every_bit(copied_run):
    report = bundle_report(copied_run)
    found = verdicts(report)
    assert found["tvm host", "isolated"]
    assert found["tvm cortex-a72", "end-to-end"]
    assert ("tvm cortex-a72", "task") not in found  # the emulator runs the grid only
    # ONNX Runtime's matrix products depend on the batch, which is exactly what this rule finds out.
    assert broken(report) <= {("tvm host, text by text", "bit-identical")}


@pytest.mark.parametrize(
    ("wrong", "stage"),
    [("cortex-a72", "tvm cortex-a72"), ("1 threads", "tvm host, 1 thread"), ("alone", "text by text")],
)
def test_one_bit_of_difference_is_a_breach(copied_run, wrong, stage):
    report = bundle_report(copied_run, wrong=(wrong,))
    names = {name for name, rule in broken(report) if rule == "bit-identical"}
    assert any(stage in name for name in names)


def test_without_a_bundle_for_this_machine_emulated_ones_are_compared_with_each_other(copied_run):
    report = bundle_report(copied_run, native=(), wrong=("host",))
    assert broken(report) == {("tvm host", "bit-identical")}


@pytest.mark.parametrize("missing", ["checkpoint", "onnx"])
def test_what_is_not_a_run_is_refused(copied_run, missing):
    shutil.rmtree(copied_run / missing)
    with pytest.raises(UsageError, match=f"holds no folder '{missing}'"):
        run_parity(copied_run)


def test_damaged_files_are_one_sentence(copied_run):
    (copied_run / "deploy.json").write_text("{")
    with pytest.raises(FormatError, match=r"deploy\.json"):
        run_parity(copied_run)
    (copied_run / "deploy.json").unlink()
    path = copied_run / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FormatError, match=r"model\.onnx is not a valid ONNX model"):
        run_parity(copied_run)


@pytest.mark.slow
@pytest.mark.needs("arm64-emulator")
def test_real_bundles_keep_every_rule(copied_run):
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.writer import compile_bundle

    for name in ("host", "cortex-a72", "cortex-a76"):
        compile_bundle(copied_run / "onnx", copied_run / "bundles" / name, target=load_target(name))
    report = run_parity(copied_run)
    assert report.passed, report.first_breach
    exact = {check.stage for check in report.checks if check.rule == "bit-identical"}
    assert {"tvm host, 1 thread", "tvm host, text by text", "tvm cortex-a72", "tvm cortex-a76"} <= exact
