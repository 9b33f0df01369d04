import dataclasses
import filecmp
import json

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.content import Content
from edgeq.targets.bundle.golden import GoldenRun, golden_inputs
from edgeq.targets.bundle.host_model import bundle_as_host_model
from edgeq.targets.bundle.model_info import read_model_info, recipe_of, within_tables
from edgeq.targets.bundle.text_settings import check_labels, check_outputs, read_text_info, with_pooling
from edgeq.targets.bundle.writer import compile_bundle, write_bundle
from edgeq.targets.compiler.limits import PositionLimit
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import MAIN
from edgeq.targets.runtime.schema import FunctionInfo, ModelInfo, TensorSpec
from edgeq.targets.runtime.text_info import TextInfo
from edgeq.targets.toolchain.linkers import find_linker

MODEL = ModelInfo("TinyModel", "embed", "mean", False, (), 40)
INPUTS = (
    TensorSpec("input_ids", "int64", ("batch", "sequence"), 0, 22),
    TensorSpec("attention_mask", "int64", ("batch", "sequence"), 0, 1, 1),
)
OUTPUTS = (TensorSpec("last_hidden_state", "float32", ("batch", "sequence", 12)),)


@pytest.fixture
def content():
    run = GoldenRun(MAIN, golden_inputs(INPUTS, MODEL), {"last_hidden_state": np.zeros((2, 9, 12), np.float32)})
    return Content(MODEL, {MAIN: FunctionInfo(INPUTS, OUTPUTS, (), {})}, [run], None, None)


def _write(compiled, out, content, name="host"):
    target = load_target(name)
    write_bundle([compiled], out, target=target, linker=find_linker(target), content=content)


@pytest.mark.parametrize("name", ["host", "cortex-a72"])
def test_writing_twice_gives_the_same_bytes(compile_tiny, content, tmp_path, monkeypatch, name):
    (tmp_path / "started here").mkdir()
    monkeypatch.chdir(tmp_path / "started here")
    compiled = compile_tiny(load_target(name))
    for folder in ("one", "two"):
        _write(compiled, tmp_path / folder, content, name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    same, different, odd = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", files, shallow=False)
    assert (different, odd) == ([], [])
    assert len(same) == len(files) >= 5
    assert list((tmp_path / "started here").iterdir()) == []


def test_a_board_bundle_is_complete_and_small(make_bundle):
    bundle = make_bundle("cortex-a72")
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    native = {"edgeq-run", "lib/libedgeq.so", "code/cortex-a72.so"}
    assert names == native | {
        "manifest.json", "manifest.sha256", "weights.bin", "golden.bin", "tokenizer.json", "tokenizer.bin",
    }  # fmt: skip
    assert set(read_manifest(bundle).files) == names - {"manifest.json", "manifest.sha256"}
    for name in native:
        header = (bundle / name).read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert header[18] == 0xB7, f"{name} is not for aarch64"
    assert (bundle / "edgeq-run").stat().st_mode & 0o111
    assert (bundle / "edgeq-run").stat().st_size < 200_000  # with its C library
    assert (bundle / "lib/libedgeq.so").stat().st_size <= 300 << 10
    assert b".debug_info" not in (bundle / "edgeq-run").read_bytes()


def test_the_c_library_that_a_board_needs_is_recorded(make_bundle):
    major, minor = map(int, read_manifest(make_bundle("cortex-a72")).tools["glibc"].split("."))
    assert (2, 17) <= (major, minor) < (2, 60)


def test_no_path_of_this_machine_is_inside(make_bundle, tmp_path):
    for name in ("code/cortex-a72.so", "lib/libedgeq.so", "edgeq-run", "manifest.json"):
        data = (make_bundle("cortex-a72") / name).read_bytes()
        assert str(tmp_path.parent.parent).encode() not in data
        assert b"/site-packages/" not in data


def test_weights_lie_where_the_manifest_says(compile_tiny, host_bundle):
    data = (host_bundle / "weights.bin").read_bytes()
    weights = {weight.name: weight.array for weight in compile_tiny(load_target("host")).weights}
    for tensor in read_manifest(host_bundle).weights:
        array = np.frombuffer(data, tensor.dtype, tensor.bytes // 4, tensor.offset).reshape(tensor.shape)
        np.testing.assert_array_equal(array, weights[tensor.name])


def test_nothing_is_left_when_writing_fails(compile_tiny, content, tmp_path):
    compiled = compile_tiny(load_target("host"))
    for array in (np.zeros((2, 2), np.complex64), np.zeros((0, 2), np.float32)):
        weights = [dataclasses.replace(compiled.weights[0], array=array)]
        with pytest.raises(FormatError, match="which no bundle can hold"):
            _write(dataclasses.replace(compiled, weights=weights), tmp_path / "out", content)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_bundle_that_was_there(compile_tiny, content, tmp_path, monkeypatch):
    compiled = compile_tiny(load_target("host"))
    _write(compiled, tmp_path / "out", content)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    monkeypatch.setattr("edgeq.targets.compiler.linking.link_code", _fail)
    with pytest.raises(EdgeqError, match="linker broke"):
        _write(compiled, tmp_path / "out", content)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _fail(*_arguments):
    raise EdgeqError("linker broke")


def test_the_golden_output_is_never_taken_from_another_model(compile_tiny, content, host_bundle, tmp_path):
    compiled = compile_tiny(load_target("host"))
    renamed = [dataclasses.replace(weight, name="other") for weight in compiled.weights]
    trained = [dataclasses.replace(weight, array=-weight.array) for weight in compiled.weights]

    def golden(weights):
        local = bundle_as_host_model(host_bundle, tmp_path, weights=weights, generation=None)
        return local.main(content.golden[0].inputs)

    assert golden(compiled.weights)["last_hidden_state"].shape == (2, 9, 12)
    for other in (renamed, trained):
        with pytest.raises(UsageError, match="holds another model"):
            golden(other)


def test_golden_inputs_reach_the_limits_and_repeat():
    once, twice = golden_inputs(INPUTS, MODEL), golden_inputs(INPUTS, MODEL)
    np.testing.assert_array_equal(once["input_ids"], twice["input_ids"])
    assert (once["input_ids"].min(), once["input_ids"].max()) == (0, 22)
    np.testing.assert_array_equal(once["attention_mask"].sum(1), [9, 6])
    short = golden_inputs(INPUTS, ModelInfo("T", "embed", "mean", False, (), 2))
    assert short["input_ids"].shape == (2, 2)


def test_a_folder_without_a_model_is_a_wrong_request(tmp_path):
    with pytest.raises(UsageError, match=r"has no model\.onnx"):
        compile_bundle(tmp_path, tmp_path / "out", target=load_target("host"))
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        compile_bundle(tmp_path, tmp_path / "out", target=load_target("host"))


def _folder(tmp_path, config, **files):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))
    return tmp_path


def _sentence_folder(tmp_path, pooling, *modules, **files):
    table = [("Transformer", ""), ("Pooling", "pool"), *((module, module.lower()) for module in modules)]
    types = [{"path": path, "type": f"sentence_transformers.models.{name}"} for name, path in table]
    return _folder(
        tmp_path, {"architectures": ["BertModel"], "max_position_embeddings": 512}, modules=types, pool__config=pooling,
        **files,
    )  # fmt: skip


STATES = TensorSpec("last_hidden_state", "float32", ("batch", "sequence", 8))
VECTOR = TensorSpec("sentence_embedding", "float32", ("batch", 8))


def test_model_info_of_a_sentence_encoder(tmp_path):
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    folder = _sentence_folder(tmp_path, pooling, "Normalize", tokenizer_config={"model_max_length": 10**30})
    model = read_model_info(folder)
    assert model == ModelInfo("BertModel", "embed", "none", False, (), 512)
    assert with_pooling(model, folder, [STATES, VECTOR]) == model
    assert with_pooling(model, folder, [STATES]) == ModelInfo("BertModel", "embed", "cls", True, (), 512)


@pytest.mark.parametrize("pooling", [{"pooling_mode": "weightedmean"}, {"pooling_mode": ["cls", "mean"]}])
def test_what_the_runtimes_cannot_pool_must_be_in_the_graph(pooling, tmp_path):
    folder = _sentence_folder(tmp_path, pooling)
    with pytest.raises(UnsupportedError, match="no output 'sentence_embedding'"):
        with_pooling(read_model_info(folder), folder, [STATES])


def test_text_info_of_a_sentence_encoder(tmp_path):
    prompts = {"query": "find: ", "none": None}
    settings = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    folder = _sentence_folder(
        tmp_path, {"pooling_mode": "mean"}, config_sentence_transformers=settings,
        sentence_bert_config={"max_seq_length": 7, "do_lower_case": False},
        tokenizer_config={"truncation_side": "left"},
    )  # fmt: skip
    assert read_text_info(folder, {}, task="embed") == TextInfo(
        {"query": "find: ", "none": ""}, "query", 7, cuts=True, cut_side="left", similarity="dot", scores="none"
    )


@pytest.mark.parametrize(
    ("config", "classes", "scores"),
    [
        ({}, 3, "softmax"),
        ({}, 1, "sigmoid"),
        ({"problem_type": "regression"}, 1, "none"),
        ({"problem_type": "regression"}, 3, "none"),
        ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
        ({"problem_type": "single_label_classification"}, 1, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 1, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, 1, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 3, "softmax"),
    ],
)
def test_scores_are_what_the_configuration_means(config, classes, scores, tmp_path):
    assert read_text_info(tmp_path, config, task="classify", classes=classes).scores == scores


def test_the_settings_of_a_cross_encoder_say_what_its_number_means(tmp_path):
    modules = [{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    identity = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    folder = _folder(tmp_path, {}, modules=modules, config_sentence_transformers=identity)
    info = read_text_info(folder, {}, task="classify", classes=1)
    assert (info.scores, info.cuts) == ("none", True)


@pytest.mark.parametrize(
    ("activation", "classes", "scores"),
    [
        ("torch.nn.modules.linear.Identity", 3, "none"),
        ("torch.nn.modules.activation.Sigmoid", 3, "sigmoid"),
        ("torch.nn.modules.activation.Softmax", 3, "softmax"),
        (None, 3, "none"),
        (None, 1, "sigmoid"),
    ],
)
def test_a_cross_encoder_with_several_labels_gives_what_its_library_gives(activation, classes, scores, tmp_path):
    modules = [{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    settings = {"model_type": "CrossEncoder", "activation_fn": activation}
    folder = _folder(tmp_path, {}, modules=modules, config_sentence_transformers=settings)
    assert read_text_info(folder, {}, task="classify", classes=classes).scores == scores


def test_sentence_transformers_limit_takes_the_place_of_the_tokenizers(tmp_path):
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    config = {"architectures": ["BertModel"], "max_position_embeddings": 64}
    folder = _folder(tmp_path, config, modules=modules, sentence_bert_config={"max_seq_length": 32})
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 12}')
    assert (read_model_info(folder).max_length, read_text_info(folder, config, task="embed").max_tokens) == (64, 32)
    (folder / "sentence_bert_config.json").write_text("{}")
    assert read_model_info(folder).max_length == 12


@pytest.mark.parametrize(
    ("task", "shapes", "fits"),
    [
        ("classify", {"logits": ("batch", 3)}, True),
        ("classify", {"logits": ("batch", "sequence", 3)}, False),
        ("classify", {"last_hidden_state": ("batch", "sequence", 8)}, False),
        ("tag", {"logits": ("batch", "sequence", 3)}, True),
        ("tag", {"logits": ("batch", 3)}, False),
        ("answer", {"start_logits": ("batch", "sequence"), "end_logits": ("batch", "sequence")}, True),
        ("answer", {"start_logits": ("batch", "sequence")}, False),
        ("fill", {"logits": ("batch", "sequence", 99)}, True),
        ("embed", {"states": ("batch", "sequence", 8)}, True),
    ],
)
def test_the_graph_must_be_what_the_configuration_says(task, shapes, fits, tmp_path):
    model = ModelInfo("SomeClass", task, "none", False, (), 8)
    outputs = [TensorSpec(name, "float32", shape) for name, shape in shapes.items()]
    if fits:
        check_outputs(model, tmp_path, outputs)
        return
    with pytest.raises(FormatError, match=r"config\.json names SomeClass, whose output is .* and the graph gives"):
        check_outputs(model, tmp_path, outputs)


def test_unknown_meanings_of_scores_are_refused(tmp_path):
    with pytest.raises(FormatError, match="'problem_type' must be one of"):
        read_text_info(tmp_path, {"problem_type": "ranking"}, task="classify", classes=2)
    odd = {"sentence_transformers": {"activation_fn": "torch.nn.Softplus"}}
    with pytest.raises(UnsupportedError, match="Softplus"):
        read_text_info(tmp_path, odd, task="classify", classes=1)
    model = ModelInfo("B", "classify", "none", False, ("a", "b"), 8)
    with pytest.raises(FormatError, match="names 2 labels, the graph has 3 logits"):
        check_labels(model, tmp_path, classes=3)


def test_sequences_are_limited_by_the_tables_of_positions(tmp_path):
    model = ModelInfo("B", "embed", "none", False, (), 66)
    limit = PositionLimit(66, 64, "positions")
    assert within_tables(model, {"max_position_embeddings": 66}, tmp_path, limit=limit).max_length == 64
    assert within_tables(model, {}, tmp_path, limit=None) == model
    with pytest.raises(FormatError, match=r"'max_position_embeddings' is 512, but the table 'positions' .* 66 rows"):
        within_tables(model, {"max_position_embeddings": 512}, tmp_path, limit=limit)


def test_model_info_of_a_classifier(tmp_path):
    folder = _folder(
        tmp_path,
        {
            "architectures": ["BertForSequenceClassification"],
            "id2label": {"1": "good", "0": "bad"},
            "max_position_embeddings": 512,
            "quantization_config": {"recipe": {"name": "ptq-w8a8", "sha256": "ab"}},
        },
        tokenizer_config={"model_max_length": 128},
    )
    expected = ModelInfo("BertForSequenceClassification", "classify", "none", False, ("bad", "good"), 128)
    assert read_model_info(folder) == expected
    assert recipe_of(json.loads((folder / "config.json").read_text())) == {"name": "ptq-w8a8", "sha256": "ab"}
    assert recipe_of({"quantization_config": 3}) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": "BertModel"}, "'architectures' must be a list"),
        ([1], "should hold a JSON object, found a list"),
        ({"architectures": ["XForSequenceClassification"], "id2label": {"1": "x"}}, "no label for class"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, config, message):
    with pytest.raises(FormatError, match=message):
        read_model_info(_folder(tmp_path, config))


def test_a_configuration_that_is_no_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FormatError, match=r"config\.json is damaged: it is not valid JSON"):
        read_model_info(tmp_path)


def test_the_public_names_are_these_functions():
    assert edgeq.compile_bundle is compile_bundle
