"""The main job, for real, on a tiny model."""

import json
import shutil
import sys

import numpy as np
import pytest

import edgeq
from edgeq.deploy import DeployResult, check_parity, deploy
from edgeq.deploy.compare import compare
from edgeq.deploy.state import fingerprint_source as real
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.report import write_report
from edgeq.results import Gates, LossLimit, ParityReport

FOLDERS = ["bundles", "checkpoint", "float-onnx", "onnx"]
RESULTS = [
    "accuracy.json",
    "deploy.json",
    "ledger.json",
    "parity.json",
    "predictions.json",
    "profile.json",
    "report.html",
    "report.json",
]


@pytest.fixture
def copied(deployed, tmp_path):
    """A copy of the finished run that a test may harm."""
    return shutil.copytree(deployed.folder, tmp_path / "run")


def test_a_run_holds_what_the_readme_says(deployed):
    names = [path.name for path in deployed.folder.iterdir() if not path.name.startswith(".")]
    assert sorted(names) == sorted([*FOLDERS, *RESULTS])
    assert deployed.passed
    assert not list(deployed.folder.rglob("*.partial"))


def test_the_report_holds_every_result(deployed):
    report = deployed.report
    assert report.about.name == "tiny bert"
    assert set(report.accuracy.stages) == {"torch float32", "torch compressed", "bundle host"}
    assert report.accuracy.examples == 6
    stages = {check.stage for check in report.parity.checks}
    assert any("onnxruntime" in stage for stage in stages)
    assert any("tvm host" in stage for stage in stages)
    assert {"torch float32, answers", "tvm host, Python, tokens", "tvm host, Python, answers"} <= stages
    assert report.parity.conditions.library
    assert {row.what for row in report.about.taken} == {"pooling", "normalisation", "prompt", "limit"}
    assert set(report.profile.measured["host"].timings) == {
        "edgeq", "onnxruntime float32", "onnxruntime int8 dynamic",
    }  # fmt: skip
    assert report.ledger.bundles["host"].totals.ratio > 3
    assert "tiny bert as ptq-w4a8" in (deployed.folder / "report.html").read_text()
    json.loads((deployed.folder / "report.json").read_text(), parse_constant=pytest.fail)


def test_checkpoint_onnx_and_bundle_store_the_same_matrices(deployed):
    ledger = deployed.report.ledger

    def matrices(book):
        return {row.tensor: row.nominal_bits for row in book.rows if row.is_low_bit}

    stored = matrices(ledger.checkpoint)
    assert matrices(ledger.bundles["host"]) == matrices(ledger.onnx)
    # The pooler is not part of what an encoder is exported for.
    assert set(stored) - set(matrices(ledger.onnx)) == {"pooler.dense"}
    assert set(stored.values()) == {4}


def test_the_bundle_runs(deployed):
    bundle = edgeq.load(deployed.folder / "bundles" / "host", threads=1)
    ids = np.array([[2, 5, 7, 3], [2, 8, 3, 0]])
    out = bundle(input_ids=ids, attention_mask=(ids > 0).astype(np.int64))
    assert list(out) == ["last_hidden_state", "sentence_embedding"]
    assert out["last_hidden_state"].shape == (2, 4, 40)


def test_a_finished_run_is_not_repeated(copied, float_checkpoint, run_options):
    again = deploy(float_checkpoint, copied, **run_options)
    assert again.ran == []


def test_what_changed_is_repeated_and_nothing_else(copied, float_checkpoint, run_options):
    again = deploy(float_checkpoint, copied, **(run_options | {"rounds": 1}))
    assert again.ran == ["profile", "report"]
    (copied / "accuracy.json").unlink()
    again = deploy(float_checkpoint, copied, **(run_options | {"rounds": 1, "eval_data": None}))
    assert again.ran == ["accuracy", "report"]
    assert again.report.verdicts[0].sentence.startswith("Accuracy was not measured")


def test_limits_are_gates_of_the_run(copied, float_checkpoint, run_options):
    """They change the report alone; nothing is measured again."""
    stored = json.loads((copied / "ledger.json").read_text())["bundles"]["host"]["totals"]["stored_bytes"]
    kept = deploy(float_checkpoint, copied, **run_options, gates=Gates(max_bytes=stored, max_ms=1e6))
    assert kept.ran == ["report"]
    assert kept.passed
    broken = deploy(float_checkpoint, copied, **run_options, gates=Gates(max_bytes=stored - 1))
    assert broken.ran == ["report"]
    assert not broken.passed
    assert [one.level for one in broken.report.verdicts if one.topic == "gate"] == ["bad"]
    assert "LIMIT NOT KEPT" in (copied / "report.html").read_text()
    again = deploy(float_checkpoint, copied, **run_options)
    assert again.passed
    assert again.report.about.gates is None


def test_a_size_that_the_recipe_cannot_keep_is_refused(float_checkpoint, run_options, tmp_path, deployed):
    book = deployed.report.ledger.bundles["host"]
    matrices = sum(row.code_bytes + row.scale_bytes + row.padding_bytes for row in book.rows)
    with pytest.raises(UsageError, match=f"not possible with recipe .* alone take {matrices:,} bytes"):
        deploy(float_checkpoint, tmp_path / "a", **run_options, gates=Gates(max_bytes=matrices - 1))
    assert not list(tmp_path.iterdir())


def test_a_size_that_only_the_matrices_tell_stops_the_run_before_it_compiles(float_checkpoint, run_options, tmp_path):
    recipe = tmp_path / "factors.toml"
    recipe.write_text(
        'name = "f"\nsummary = "f"\n[weights]\nbits = 4\n[embeddings]\nbits = 4\n'
        '[factor]\nmethod = "low-rank"\nrank = 8\n'
    )
    with pytest.raises(EdgeqError, match="--max-bytes allows 1,000"):
        deploy(float_checkpoint, tmp_path / "run", **(run_options | {"recipe": recipe}), gates=Gates(max_bytes=1000))
    assert (tmp_path / "run" / "checkpoint").is_dir()
    assert not (tmp_path / "run" / "bundles").exists()


def test_an_opset_that_is_not_exported_is_refused_before_the_work(float_checkpoint, run_options, tmp_path):
    with pytest.raises(UsageError, match="opset must be 18 to 23, found 3"):
        deploy(float_checkpoint, tmp_path / "run", **run_options, opset=3)
    assert not list(tmp_path.iterdir())


def test_limits_that_nothing_is_measured_for_are_refused(float_checkpoint, run_options, tmp_path):
    loss = Gates(max_loss=LossLimit(1.0, relative=True, end="middle"))
    with pytest.raises(UsageError, match="--eval-data"):
        deploy(float_checkpoint, tmp_path / "a", **(run_options | {"eval_data": None}), gates=loss)
    with pytest.raises(UsageError, match="runs on this machine"):
        deploy(float_checkpoint, tmp_path / "b", **(run_options | {"targets": ["cortex-a72"]}), gates=Gates(max_ms=1.0))
    assert not list(tmp_path.iterdir())


def test_a_run_is_compared_with_its_float_model(deployed):
    result = compare([deployed.folder])
    assert result.examples == 6
    (found,) = result.models
    losses = deployed.report.accuracy.losses["bundle host"]
    assert found.difference == pytest.approx(-losses.value)
    assert found.verdict == "cannot tell"


def test_a_damaged_bundle_is_named_by_parity(copied):
    weights = copied / "bundles" / "host" / "weights.bin"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:100] + bytes([intact[100] ^ 1]) + intact[101:])
    with pytest.raises(FormatError, match=r"weights\.bin"):
        check_parity(copied)


def test_wrong_requests_write_nothing(float_checkpoint, tmp_path, run_options, monkeypatch):
    out = tmp_path / "out"
    bad = tmp_path / "latin1.tsv"
    bad.write_bytes("sentence1\tsentence2\tscore\ncaf\xe9\tb\t1\n".encode("latin-1"))
    for change in (
        {"recipe": "ptq-w3a8"}, {"targets": ["cortex-a75"]}, {"targets": []}, {"eval_data": bad},
        {"eval_data": tmp_path / "nowhere.tsv"}, {"context": 5},
        {"cache": "float8"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            deploy(float_checkpoint, out, **(run_options | change))
        assert not out.exists(), change
    with pytest.raises(UsageError, match="nowhere"):
        deploy(tmp_path / "nowhere", out, **run_options)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)  # what Python takes for not installed
    with pytest.raises(UnsupportedError, match=r"cortex-a76.*to fix: .*edgeq doctor"):
        deploy(float_checkpoint, out, **(run_options | {"targets": ["cortex-a76"]}))
    assert not out.exists()


def test_a_damaged_source_leaves_no_folder(float_checkpoint, tmp_path, run_options):
    source = shutil.copytree(float_checkpoint, tmp_path / "source")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        deploy(source, tmp_path / "out", **run_options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_someone_else_is_not_touched(float_checkpoint, tmp_path, run_options):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        deploy(float_checkpoint, tmp_path, **run_options)
    with pytest.raises(UsageError, match=r"not empty|holds the source"):
        deploy(float_checkpoint, float_checkpoint, **run_options)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_checks_on_the_data_decide_for_edgeq_parity_too(copied, monkeypatch):
    """What makes deploy fail makes `edgeq parity` fail, without the data being at hand."""
    own = ParityReport.read(copied / "parity.json")
    monkeypatch.setattr("edgeq.parity.run_parity", lambda *_, **__: own)
    assert check_parity(copied).passed
    accuracy = json.loads((copied / "accuracy.json").read_text())
    accuracy["checks"] = [{"stage": "bundle host", "rule": "task", "passed": False, "detail": "it differs"}]
    (copied / "accuracy.json").write_text(json.dumps(accuracy))
    assert not check_parity(copied).passed
    assert json.loads((copied / "parity.json").read_text())["passed"]
    report = write_report(copied)
    assert not DeployResult(copied, report, []).passed
    assert any(verdict.level == "bad" and "it differs" in verdict.sentence for verdict in report.verdicts)


def test_the_source_is_read_once(copied, float_checkpoint, run_options, monkeypatch):
    read = []
    monkeypatch.setattr("edgeq.deploy.plan.fingerprint_source", lambda source: read.append(source) or real(source))
    deploy(float_checkpoint, copied, **run_options)
    assert read == [str(float_checkpoint)]
