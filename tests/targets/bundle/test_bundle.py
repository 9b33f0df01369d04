import dataclasses
import filecmp
import json

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.golden import GoldenRun, golden_inputs
from edgeq.targets.bundle.host_model import bundle_as_host_model
from edgeq.targets.bundle.model_info import read_model_info, recipe_of
from edgeq.targets.bundle.writer import Content, compile_bundle, write_bundle
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.schema import MAIN, FunctionInfo, ModelInfo, TensorSpec
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
    write_bundle(compiled, out, target=target, linker=find_linker(target), content=content)


@pytest.mark.parametrize("name", ["host", "cortex-a72"])
def test_writing_twice_gives_the_same_bytes(compile_tiny, content, tmp_path, name):
    compiled = compile_tiny(load_target(name))
    for folder in ("one", "two"):
        _write(compiled, tmp_path / folder, content, name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    same, different, odd = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", files, shallow=False)
    assert (different, odd) == ([], [])
    assert len(same) == len(files) >= 5


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
    assert (bundle / "edgeq-run").stat().st_size < 200_000
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


def test_model_info_of_a_sentence_encoder(tmp_path):
    folder = _folder(
        tmp_path,
        {"architectures": ["BertModel"], "max_position_embeddings": 512},
        modules=[{"type": "sentence_transformers.models.Normalize"}],
        **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}},
        tokenizer_config={"model_max_length": 10**30},
    )
    assert read_model_info(folder) == ModelInfo("BertModel", "embed", "cls", True, (), 512)


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


def test_ambiguous_pooling_is_refused(tmp_path):
    folder = _folder(tmp_path, {}, **{"1_Pooling__config": {"pooling_mode_weightedmean_tokens": True}})
    with pytest.raises(FormatError, match="found pooling_mode_weightedmean_tokens"):
        read_model_info(folder)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FormatError, match=r"config\.json is damaged: it is not valid JSON"):
        read_model_info(folder)


def test_the_public_names_are_these_functions():
    assert edgeq.compile_bundle is compile_bundle
