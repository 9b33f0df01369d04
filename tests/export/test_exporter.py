"""The exported folder: its graph, its bytes, and who can run it."""

import collections
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UsageError
from edgeq.export.exporter import export_onnx
from edgeq.export.trace import onnx_models
from edgeq.formats.low_bit import OP_DOMAIN, WEIGHT_ALIGNMENT
from edgeq.models import TorchEncoder
from edgeq.models.transformers_release import RELEASE


@pytest.fixture(scope="session")
def weight_only_checkpoint(make_bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("weight-only") / "checkpoint"
    compress_model(make_bert(num_hidden_layers=1), out, recipe="ptq-w4")
    return out


def feeds(batch, length, *, vocabulary=60, seed=0):
    """Random ids with padding in every text but the first."""
    random = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):
        mask[row, max(1, length - 2 * row) :] = 0
    return {
        "input_ids": random.integers(5, vocabulary, (batch, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, (batch, length)),
    }


def test_the_graph_holds_one_node_for_each_thing_a_layer_does(compressed_onnx):
    model = onnx.load(compressed_onnx)
    count = collections.Counter(node.op_type for node in model.graph.node)
    layers = 2
    assert count["LowBitLinear"] == 6 * layers
    assert count["Attention"] == count["Gelu"] == layers
    assert count["LayerNormalization"] == 2 * layers + 1
    assert count["Add"] == 2 * layers + 2
    assert count["Expand"] == 1  # the mask's rows, once for all layers
    assert not count.keys() & {"Reshape", "Transpose", "Identity", "Constant", "Gemm"}
    assert count["MatMul"] == 1  # the sum over tokens of the sentence embedding
    of_the_embedding = 8  # the mask as weights, their sum, the product, the quotient
    of_the_mask = 16 if RELEASE < 5 else 15
    assert sum(count.values()) == 12 * layers + of_the_mask + of_the_embedding
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [o.name for o in model.graph.output] == ["last_hidden_state", "sentence_embedding"]
    assert model.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "batch"
    for value in (*model.graph.input, model.graph.output[0]):
        dimensions = [d.dim_param for d in value.type.tensor_type.shape.dim]
        assert dimensions[:2] == ["batch", "sequence"]


def test_nodes_and_constants_carry_the_names_of_the_checkpoint(compressed_onnx, compressed_checkpoint):
    model = onnx.load(compressed_onnx, load_external_data=False)
    low_bit = {node.name for node in model.graph.node if node.domain == OP_DOMAIN}
    assert "encoder.layer.1.attention.output.dense/LowBitLinear" in low_bit
    assert "encoder.layer.0.attention.self/Attention" in {node.name for node in model.graph.node}
    packed = {t.name for t in model.graph.initializer if t.name.endswith(".weight_packed")}
    described = load_checkpoint(compressed_checkpoint).manifest.tensors
    # The pooler is in the checkpoint, but nothing of it reaches the token states.
    assert packed == {f"{name}.weight_packed" for name in described if not name.startswith("pooler")}


def test_external_data_is_aligned_and_complete(compressed_onnx):
    model = onnx.load(compressed_onnx, load_external_data=False)
    end, size = 0, compressed_onnx.with_name("model.onnx.data").stat().st_size
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert len(external) > 20
    for tensor in external:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == "model.onnx.data"
        assert int(place["offset"]) % WEIGHT_ALIGNMENT == 0
        assert int(place["offset"]) >= end
        end = int(place["offset"]) + int(place["length"])
    assert end == size


@pytest.mark.slow
def test_same_bytes_from_another_folder_and_hash_seed(compressed_checkpoint, compressed_onnx, tmp_path):
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(compressed_checkpoint, moved)
    script = "import sys; from edgeq.export.exporter import export_onnx; export_onnx(sys.argv[1], sys.argv[2])"
    seed = "4321" if os.environ.get("PYTHONHASHSEED") != "4321" else "1"
    subprocess.run(
        [sys.executable, "-c", script, str(moved), str(tmp_path / "out")],
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
    )
    first = {p.relative_to(compressed_onnx.parent): p.read_bytes() for p in compressed_onnx.parent.rglob("*.*")}
    second = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert first == second


def test_no_trace_of_the_machine_inside(compressed_onnx):
    content = compressed_onnx.read_bytes()
    for trace in (
        b"site-packages",
        b".py",
        b"/home",
        b"/root",
        b"/tmp",
        str(compressed_onnx.parent).encode(),
    ):
        assert trace not in content
    model = onnx.load(compressed_onnx, load_external_data=False)
    assert model.producer_name == "edgeq"
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("opset", range(18, 24))
def test_every_opset_runs_alike(weight_only_checkpoint, opset):
    checkpoint = load_checkpoint(weight_only_checkpoint)
    [(_, model)] = onnx_models(checkpoint.model, checkpoint.adapter, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert ("Gelu" in kinds) == (opset >= 20)
    assert ("Attention" in kinds) == (opset >= 23)
    encoder = TorchEncoder(checkpoint.model, checkpoint.adapter)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch, length in ((1, 1), (3, 11), (1, 37)):
        inputs = feeds(batch, length, seed=opset)
        want = encoder(**inputs)
        # Weight-only: no quantizer that could turn a difference of one ulp into a step.
        for name, got in zip(("last_hidden_state", "sentence_embedding"), session.run(None, inputs), strict=True):
            np.testing.assert_allclose(got, want[name], atol=2e-5)


def test_reference_evaluator_and_runtime_agree_with_torch(compressed_onnx, compressed_checkpoint):
    checkpoint = load_checkpoint(compressed_checkpoint)
    inputs = feeds(3, 9)
    want = TorchEncoder(checkpoint.model, checkpoint.adapter)(**inputs)["last_hidden_state"]
    for run in (
        onnxruntime.InferenceSession(compressed_onnx).run,
        ReferenceEvaluator(str(compressed_onnx)).run,
    ):
        got = run(None, inputs)[0]
        assert np.sqrt(np.mean((got - want) ** 2)) < 0.05 * np.sqrt(np.mean(want**2))


@pytest.mark.optimum
def test_optimum_loads_encoders(compressed_onnx):
    import torch
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(compressed_onnx.parent)
    model = ORTModelForFeatureExtraction.from_pretrained(compressed_onnx.parent)
    batch = tokenizer(["the cat sat", "a quick brown fox jumps"], padding=True, return_tensors="pt")
    got = model(**batch).last_hidden_state
    feed = {k: v.numpy() for k, v in batch.items()}
    [want] = onnxruntime.InferenceSession(compressed_onnx).run(["last_hidden_state"], feed)
    assert torch.equal(got, torch.from_numpy(want))


def test_classifiers_keep_their_logits(make_bert, tmp_path):
    source = make_bert("BertForSequenceClassification", num_labels=3, num_hidden_layers=1)
    compress_model(source, tmp_path / "checkpoint", recipe="ptq-w4")
    exported = export_onnx(tmp_path / "checkpoint", tmp_path / "onnx")
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    inputs = feeds(2, 6)
    want = TorchEncoder(checkpoint.model, checkpoint.adapter)(**inputs)["logits"]
    [got] = onnxruntime.InferenceSession(exported).run(["logits"], inputs)
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.optimum
def test_optimum_loads_classifiers(make_bert, tmp_path):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    exported = export_onnx(make_bert("BertForSequenceClassification", num_labels=3), tmp_path / "onnx")
    model = ORTModelForSequenceClassification.from_pretrained(exported.parent)
    assert model(**feeds(2, 6)).logits.shape == (2, 3)


def test_float_checkpoints_export_as_a_baseline(float_checkpoint, tmp_path):
    exported = export_onnx(float_checkpoint, tmp_path / "onnx")
    model = onnx.load(exported, load_external_data=False)
    assert not model.functions
    assert all(entry.domain != OP_DOMAIN for entry in model.opset_import)
    checkpoint = load_checkpoint(float_checkpoint)
    inputs = feeds(3, 8)
    [got] = onnxruntime.InferenceSession(exported).run(["last_hidden_state"], inputs)
    want = TorchEncoder(checkpoint.model, checkpoint.adapter)(**inputs)["last_hidden_state"]
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("opset", [17, 24, 0])
def test_unknown_opsets_are_refused_before_any_work(compressed_checkpoint, tmp_path, opset):
    with pytest.raises(UsageError, match=f"opset must be 18 to 23, found {opset}"):
        export_onnx(compressed_checkpoint, tmp_path / "out", opset=opset)
    assert not any(tmp_path.iterdir())


def test_output_never_replaces_its_source(compressed_checkpoint):
    for out in (compressed_checkpoint, compressed_checkpoint.parent):
        with pytest.raises(UsageError, match="would replace"):
            export_onnx(compressed_checkpoint, out)
    assert (compressed_checkpoint / "model.safetensors").is_file()


def test_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        export_onnx(tmp_path / "nothing", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(compressed_checkpoint, compressed_onnx, tmp_path, monkeypatch):
    from edgeq.export import exporter

    def fail(*_):
        raise RuntimeError("disk full")

    graphs = [("model", onnx.load(compressed_onnx))]
    monkeypatch.setattr(exporter, "onnx_models", lambda *_, **__: iter(graphs))
    monkeypatch.setattr(exporter, "copy_sentence_settings", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        export_onnx(compressed_checkpoint, tmp_path / "out")
    assert not any(tmp_path.iterdir())
