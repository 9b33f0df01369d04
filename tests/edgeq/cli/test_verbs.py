"""Every verb on real results: what it prints, its JSON, and its exit code when a file is damaged."""

import json
import shutil

import pytest

import edgeq.cli.main as cli


@pytest.fixture
def run(capsys):
    """Returns a function that runs the command line and returns exit code, stdout and stderr."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def bundle(deployed):
    return deployed.folder / "bundles" / "host"


@pytest.fixture
def harmed(deployed, tmp_path):
    """Returns a function that copies a part of the run and flips one bit of a file in it."""

    def harm(part, file, position=0.5, keep=1.0):
        folder = shutil.copytree(deployed.folder / part, tmp_path / "harmed")
        data = bytearray((folder / file).read_bytes())
        data[int(position * len(data))] ^= 0x10
        (folder / file).write_bytes(bytes(data[: int(keep * len(data))]))
        return folder

    return harm


def one_sentence(err):
    lines = [line for line in err.strip().splitlines() if not line.endswith(": done")]
    return len(lines) == 1 and lines[0].startswith("edgeq: ") and "Traceback" not in err


def test_size_of_every_form(run, deployed):
    for part in ("checkpoint", "onnx", "onnx/model.onnx", "float-onnx", "bundles/host"):
        code, out, _ = run("size", deployed.folder / part)
        assert code == 0
        assert "stored" in out
    code, out, _ = run("size", deployed.folder / "checkpoint", "--json")
    assert code == 0
    assert json.loads(out)["totals"]["ratio"] > 3
    code, _, err = run("size", deployed.folder)
    assert (code, one_sentence(err)) == (2, True)


def test_run_prints_json_lines(run, bundle, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("the dog\n\ngood movie\n")
    code, out, _ = run("run", bundle, "--text", "the cat sat", "--file", file, "--threads", "1")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == ["the cat sat", "the dog", "", "good movie"]
    assert [len(row.get("embedding", [])) for row in rows] == [40, 40, 0, 40]  # a blank line keeps its place
    code, out, _ = run("run", bundle, "--text", "the cat sat", "--json")
    assert json.loads(out)[0]["embedding"] == rows[0]["embedding"]


def test_wrong_texts_are_usage_errors(run, bundle, tmp_path):
    latin1 = tmp_path / "latin1.txt"
    latin1.write_bytes(b"caf\xe9\n")
    for arguments in (
        [], ["--text", ""], ["--text", "cat " * 100], ["--file", latin1], ["--file", tmp_path / "nowhere"],
    ):  # fmt: skip
        code, out, err = run("run", bundle, *arguments)
        assert (code, out, one_sentence(err)) == (2, "", True), (arguments, err)


def test_verify_accepts_an_intact_bundle(run, bundle):
    code, out, _ = run("verify", bundle, "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True


@pytest.mark.parametrize("file", ["weights.bin", "manifest.json", "code/host.so", "golden.bin", "tokenizer.json"])
def test_a_flipped_bit_anywhere_in_a_bundle_is_found(run, harmed, file):
    folder = harmed("bundles/host", file)
    for verb in ("verify", "run", "profile"):
        arguments = ["--text", "cat"] if verb == "run" else []
        code, out, err = run(verb, folder, *arguments)
        assert (code, out, one_sentence(err)) == (1, "", True), (verb, err)
        assert file in err


@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_a_damaged_checkpoint_is_not_exported(run, harmed, tmp_path, keep):
    folder = harmed("checkpoint", "model.safetensors", keep=keep)
    code, out, err = run("export", folder, tmp_path / "out")
    assert (code, out, one_sentence(err)) == (1, "", True), err
    assert "model.safetensors" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_a_truncated_onnx_model_is_not_compiled(run, harmed, tmp_path, file):
    folder = harmed("onnx", file, position=0, keep=0.6)
    code, out, err = run("compile", folder, tmp_path / "out")
    assert (code, out, one_sentence(err)) == (1, "", True), err
    assert "model.onnx" in err
    assert not (tmp_path / "out").exists()


def test_profile_finds_the_baseline_inside_a_run(run, bundle):
    arguments = ("--rounds", 2, "--sequence", 8, "--threads", 1)
    code, out, _ = run("profile", bundle, *arguments)
    assert code == 0
    assert "onnxruntime float32" in out
    assert "low_bit_matmul" in out
    code, out, _ = run("profile", bundle, *arguments, "--json")
    measured = json.loads(out)
    assert measured["threads"] == 1
    assert sum(operator["share"] for operator in measured["operators"]) == pytest.approx(1)
    code, _, err = run("profile", bundle, "--sequence", 1000)
    assert (code, one_sentence(err)) == (2, True)


def test_report_is_written_again(run, deployed, tmp_path):
    folder = shutil.copytree(deployed.folder, tmp_path / "run")
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, out, _ = run("report", folder)
    assert code == 0
    assert out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == page


def test_runs_are_compared_in_a_page_of_their_own(run, deployed, tmp_path):
    again = shutil.copytree(deployed.folder, tmp_path / "again")
    code, _, err = run("report", deployed.folder, again)
    assert (code, one_sentence(err)) == (2, True)
    code, out, _ = run("report", deployed.folder, again, "--out", tmp_path / "both.html", "--json")
    assert code == 0
    assert sorted(model["label"] for model in json.loads(out)["models"]) == ["float32", "ptq-w4a8", "ptq-w4a8 (again)"]
    assert (tmp_path / "both.html").is_file()


def test_deploy_prints_the_table_and_says_what_it_skipped(run, deployed, float_checkpoint, run_options):
    options = [
        f"--{key.replace('_', '-')}={run_options[key]}" for key in ("recipe", "eval_data", "name", "rounds")
    ]
    code, out, err = run(
        "deploy", float_checkpoint, deployed.folder, *options, "--sequence=16", "--target=host"
    )
    assert code == 0
    assert "edgeq ptq-w4a8, host" in out
    assert str(deployed.folder / "report.html") in out
    assert err.count("unchanged since the last run") == 9


def test_a_limit_that_is_not_kept_exits_with_one_and_its_reason(run, deployed, float_checkpoint, run_options, tmp_path):
    folder = shutil.copytree(deployed.folder, tmp_path / "run")
    stored = deployed.report.ledger.bundles["host"].totals.stored_bytes
    options = [f"--{key.replace('_', '-')}={run_options[key]}" for key in ("recipe", "eval_data", "name", "rounds")]
    options += ["--sequence=16", "--target=host"]
    code, out, _ = run("deploy", float_checkpoint, folder, *options, f"--max-bytes={stored - 1}", "--max-loss=1000")
    assert code == 1
    assert out.count("LIMIT NOT KEPT") == 1
    assert f"{stored:,}" in out
    code, out, _ = run("deploy", float_checkpoint, folder, *options, f"--max-bytes={stored}", "--max-loss=1000")
    assert (code, "LIMIT NOT KEPT" in out) == (0, False)


def test_doctor_knows_every_target(run):
    code, out, _ = run("doctor", "--target", "host", "--json")
    findings = json.loads(out)["findings"]
    assert code == (0 if all(finding["ok"] for finding in findings) else 1)
    assert {"processor", "host: C compiler"} <= {finding["name"] for finding in findings}
