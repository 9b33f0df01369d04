"""The benchmark at true size: bounds are compared, and a stage measures its own process."""

import copy

import pytest

from benchmarks.true_size import __main__ as true_size
from benchmarks.true_size import stage
from benchmarks.true_size.models import MEBIBYTE, MODELS

GOOD = {
    "compress": {"stored_bytes": 33 * MEBIBYTE},
    "export": {"seconds": 20.0, "peak_bytes": 1 << 30},
    "compile": {"seconds": 90.0, "peak_bytes": 2 << 30, "stored_bytes": 33 * MEBIBYTE},
    "parity": {"passed": True},
    "generate": {"a_batch_gives_the_tokens_of_a_text_alone": True, "step_ratio": 1.4},
}


def test_the_bounds_hold_where_they_should():
    checks = true_size._checks("gpt2-small", GOOD)
    assert len(checks) == 9
    assert all(check["ok"] for check in checks)
    assert len(true_size._checks("bart-base", GOOD)) == 4


@pytest.mark.parametrize(
    ("name", "key", "value", "what"),
    [
        ("compress", "stored_bytes", 34 * MEBIBYTE, "MiB of all tensors"),
        ("compile", "stored_bytes", 34 * MEBIBYTE, "MiB of weights.bin"),
        ("export", "seconds", 181.0, "seconds to export"),
        ("compile", "peak_bytes", 5 << 30, "GiB to compile"),
        ("parity", "passed", False, "parity"),
        ("generate", "step_ratio", 2.2, "time of a step at 1000 tokens over one at 100"),
        ("generate", "a_batch_gives_the_tokens_of_a_text_alone", False, "a batch gives"),
    ],
)
def test_a_broken_bound_is_seen(name, key, value, what):
    results = copy.deepcopy(GOOD)
    results[name][key] = value
    broken = [check["what"] for check in true_size._checks("gpt2-small", results) if not check["ok"]]
    assert len(broken) == 1
    assert what in broken[0]


def test_the_models_are_those_that_were_published():
    import torch

    with torch.device("meta"):  # shapes only
        counts = {name: sum(p.numel() for p in model.make().parameters()) for name, model in MODELS.items()}
    assert counts == {"gpt2-small": 124439808, "bart-base": 139420416}


def test_a_stage_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(SystemExit, match="gpt2-small: export ended with code 1"):
        true_size._run_stage("gpt2-small", "export", tmp_path)


def test_parity_tells_which_checks_failed(monkeypatch, tmp_path):
    from edgeq.parity import run
    from edgeq.results import Check, ParityReport

    checks = [Check("a", "b", passed, "why", {}) for passed in (True, False)]
    monkeypatch.setattr(run, "run_parity", lambda _: ParityReport(checks))
    found = stage.parity("gpt2-small", tmp_path)
    assert (found["passed"], found["checks"], [check["passed"] for check in found["breaches"]]) == (False, 2, [False])
