"""``edgeq diff``: right models stay within every envelope, and a fault is found in the layer where it lies."""

import json
import shutil
import types

import numpy as np
import onnx
import pytest

import edgeq.cli.main as cli
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.factor.kinds.tucker import BankSpec, TuckerSpec
from edgeq.factor.manifest import FactorManifest
from edgeq.parity import diff_layers
from edgeq.parity.diff import backends
from edgeq.parity.diff.graph_layers import cut, layers_of, tapped
from edgeq.report.text import diff_lines
from tests.edgeq.runs import change_tensor, edit_graphs

QUICK = ("onnx-reference", "onnxruntime")


@pytest.fixture(scope="module")
def bert_run(compressed_checkpoint, compressed_onnx, tmp_path_factory):
    run = tmp_path_factory.mktemp("diff") / "bert"
    shutil.copytree(compressed_checkpoint, run / "checkpoint")
    shutil.copytree(compressed_onnx.parent, run / "onnx")
    return run


@pytest.fixture(scope="module")
def gpt2_run(gpt2_onnx):
    return gpt2_onnx.parent


@pytest.fixture
def edited(tmp_path):
    """Returns a function that copies a run and lets a function edit its graph."""

    def edit(run, change, graph="model"):
        copy = shutil.copytree(run, tmp_path / "run")
        edit_graphs(copy, lambda models: change(models[graph]))
        return copy

    return edit


def scale(name, factor):
    return lambda model: change_tensor(model, name, lambda values: values * factor)


def test_every_layer_of_right_models_is_within_its_envelope(bert_run, gpt2_run):
    for run, count in ((bert_run, 22), (gpt2_run, 16)):
        for found in diff_layers(run, backends=QUICK):
            assert found.first is None, found.first
            names = [step.name for step in found.steps if step.part == "layer"]
            assert len(names) == len(set(names)) == count
            assert all(0 <= step.error < 1 for step in found.steps)
            assert max(step.moved for step in found.steps) > 0


@pytest.mark.slow
def test_the_compiled_decoder_is_walked_with_its_cache(gpt2_run):
    (found,) = diff_layers(gpt2_run, backends=["tvm"])
    assert found.first is None, found.first
    assert [step.name for step in found.steps][:3] == ["transformer.wte", "transformer.wpe", "transformer.h.0.ln_1"]
    assert found.steps[-1].name == "lm_head"


@pytest.mark.slow
def test_both_halves_of_an_encoder_decoder_are_walked(make_bart, tmp_path):
    source = make_bart(encoder_layers=1, decoder_layers=1)
    compress_model(source, tmp_path / "checkpoint", recipe="ptq-w4a8")
    export_onnx(tmp_path / "checkpoint", tmp_path / "onnx")
    found = diff_layers(tmp_path)
    assert [each.backend for each in found] == list(QUICK)
    for each in found:
        assert each.first is None, each.first
        names = [step.name for step in each.steps]
        assert names[0] == "model.encoder.embed_tokens"
        assert names[-1] == "lm_head"
        assert "model.decoder.layers.0.encoder_attn.k_proj" in names


@pytest.mark.slow
def test_a_fault_in_the_attention_to_a_source_is_found(bart_onnx, edited):
    layer = "model.decoder.layers.0.encoder_attn.v_proj"
    wrong = edited(bart_onnx.parent, scale(f"{layer}.scale", 1.01), "decoder_model")
    (found,) = diff_layers(wrong, backends=["onnxruntime"])
    assert found.first.name == layer


@pytest.mark.slow
def test_the_compiled_encoder_is_walked(bert_run):
    (found,) = diff_layers(bert_run, backends=["tvm"])
    assert found.first is None, found.first


@pytest.mark.parametrize(
    ("tensor", "layer", "operator"),
    [
        ("encoder.layer.1.intermediate.dense.scale", "encoder.layer.1.intermediate.dense", "LowBitLinear"),
        ("encoder.layer.0.output.LayerNorm.weight", "encoder.layer.0.output.LayerNorm", "LayerNormalization"),
        ("embeddings.token_type_embeddings.weight", "embeddings.token_type_embeddings", "Gather"),
    ],
)
def test_a_wrong_weight_is_found_in_its_layer(bert_run, edited, tensor, layer, operator):
    (found,) = diff_layers(edited(bert_run, scale(tensor, np.float32(1.001))), backends=["onnxruntime"])
    assert (found.first.name, found.first.part, found.first.operators) == (layer, "layer", (operator,))
    assert not found.first.is_right_alone
    # Alone, every other layer is right: they are given what PyTorch gave them.
    assert [step.name for step in found.steps if not step.is_right_alone] == [layer]


def test_a_fault_between_layers_is_found_before_the_layer_that_reads_it(bert_run, edited):
    def sharpen(model):
        node = next(n for n in model.graph.node if n.name == "encoder.layer.1.attention.self/Attention")
        kept = [attribute for attribute in node.attribute if attribute.name != "scale"]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("scale", 0.4)])

    (found,) = diff_layers(edited(bert_run, sharpen), backends=["onnxruntime"])
    assert (found.first.name, found.first.part) == ("encoder.layer.1.attention.output.dense", "before")
    assert found.first.operators[0] == "Attention"


def test_wrong_positions_are_found_in_their_table(gpt2_run, edited):
    def roll(model):
        change_tensor(model, "transformer.wpe.weight", lambda rows: np.roll(rows, 1, axis=0))

    (found,) = diff_layers(edited(gpt2_run, roll), backends=["onnxruntime"])
    assert found.first.name == "transformer.wpe"
    last = found.steps[-1]
    assert last.is_right_alone
    assert last.moved > last.limit
    (line,) = diff_lines(found, every_layer=False)
    assert line.startswith("onnxruntime: the first outside its envelope is transformer.wpe (Gather): alone its error")
    assert len(diff_lines(found, every_layer=True)) == 1 + len(found.steps)


def test_results_that_are_no_numbers_are_outside(bert_run, edited):
    run = edited(bert_run, scale("encoder.layer.0.output.LayerNorm.bias", np.float32(np.nan)))
    (found,) = diff_layers(run, backends=["onnxruntime"])
    assert found.first.name == "encoder.layer.0.output.LayerNorm"
    assert found.first.error is None


def test_a_graph_is_cut_at_every_layer(gpt2_run):
    model = onnx.load(gpt2_run / "onnx" / "model.onnx")
    names = {"transformer.h.0.ln_1", "transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj"}
    layers = layers_of(model.graph, names)
    assert {layer.name for layer in layers} == names
    assert [layer.width for layer in layers] == [36, 36, 36]
    assert layers[0].between[0] == "Add"
    assert layers[1].between == ()  # it reads what the layer before it made
    values = {layer.output: np.zeros((2, 17, 36), np.float32) for layer in layers}
    pieces = cut(model, values, batch=2, tokens=17)
    assert {f"{name}@given" for name in values} <= {value.name for value in pieces.graph.input}
    assert not any(name in values for node in pieces.graph.node for name in node.input)
    assert set(values) <= {value.name for value in tapped(model, values, batch=2, tokens=17).graph.output}
    assert len(model.graph.input) == 3 + 4
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in pieces.graph.input]
    assert sizes[-1] == ["batch_size", "sequence_length", 36]
    flat = cut(model, {"transformer.h.0.ln_1/LayerNormalization": np.zeros((34, 36), np.float32)}, batch=2, tokens=17)
    assert [d.dim_value for d in flat.graph.input[-1].type.tensor_type.shape.dim] == [34, 36]


def test_wrong_use_is_a_sentence(bert_run, make_bart, tmp_path, capsys):
    with pytest.raises(UsageError, match="there is no backend 'qnn'; there are onnx-reference"):
        diff_layers(bert_run, backends=["qnn"])
    with pytest.raises(UsageError, match="is not a run of `edgeq deploy`"):
        diff_layers(tmp_path)
    shutil.copytree(make_bart(), tmp_path / "checkpoint")
    (tmp_path / "onnx").mkdir()
    with pytest.raises(UnsupportedError, match="which edgeq diff does not cut into layers; leave --backend tvm out"):
        diff_layers(tmp_path, backends=["tvm"])
    with pytest.raises(FormatError, match=r"encoder_model\.onnx"):
        diff_layers(tmp_path)
    assert cli.main(["diff", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("edgeq: ") == 1


def test_slices_of_a_tucker_bank_are_refused_in_a_sentence():
    layers = {
        "factor_bank": BankSpec(40, 8, 0),
        "encoder.layer.0.output.dense": TuckerSpec("factor_bank", 40, 8, (1, 2), 0, False, bias=True),
    }
    manifest = types.SimpleNamespace(factors=FactorManifest(layers, "factored").to_json())
    with pytest.raises(UnsupportedError, match=r"output\.dense is a slice of a Tucker bank"):
        backends._check_layers(types.SimpleNamespace(manifest=manifest))
    backends._check_layers(types.SimpleNamespace(manifest=None))


def test_the_verb_exits_with_1_and_names_the_layer(bert_run, edited, capsys):
    assert cli.main(["diff", str(bert_run), "--backend", "onnxruntime"]) == 0
    assert "onnxruntime: all 22 layers are within their envelopes" in capsys.readouterr().out
    run = edited(bert_run, scale("encoder.layer.0.output.dense.scale", np.float32(1.01)))
    assert cli.main(["diff", str(run), "-b", "onnxruntime", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["within"] is False
    assert result["backends"][0]["first"]["name"] == "encoder.layer.0.output.dense"
