"""Parity of runs whose caches are int8, by the rules of float16."""

import shutil

import pytest

import edgeq
from edgeq.parity import run_parity
from edgeq.parity.diff.backends import diff_layers
from edgeq.targets.builtin.target import load_target
from tests.edgeq.runs import write_record

pytestmark = pytest.mark.slow


@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize(("family", "recipe"), [("gpt2", "ptq-w2e2a8"), ("gpt2", "ptq-w4"), ("bart", "ptq-w2e2a8")])
def test_a_run_with_an_int8_cache_passes_every_rule(family, recipe, request, exported, tmp_path):
    make = request.getfixturevalue(f"make_{family}")
    options = {"encoder_layers": 1, "forced_bos_token_id": 0} if family == "bart" else {}
    compressed, plain = (exported(make, name, **options) for name in (recipe, None))
    run = tmp_path / "run"
    shutil.copytree(compressed / "checkpoint", run / "checkpoint")
    shutil.copytree(plain / "onnx", run / "float-onnx")  # whose caches are float16
    edgeq.export_onnx(run / "checkpoint", run / "onnx", cache="int8")
    for target in ("host", "cortex-a72"):
        edgeq.compile_bundle(run / "onnx", run / "bundles" / target, target=load_target(target))
    write_record(run, source=plain / "checkpoint", targets=("host", "cortex-a72"))
    report = run_parity(run)
    assert report.passed, report.first_breach
    checked = {(check.stage, check.rule) for check in report.checks}
    stages = ("onnx reference", "onnxruntime", "tvm host", "tvm cortex-a72")
    assert {(stage, rule) for stage in stages for rule in ("end-to-end", "task")} <= checked
    assert {("tvm host, without cache", "bit-identical"), ("tvm cortex-a72", "bit-identical")} <= checked
    assert ("onnxruntime float32", "end-to-end") in checked
    assert ("tvm host, Python, generated texts", "meaning") in checked
    assert all(found.within for found in diff_layers(run))
