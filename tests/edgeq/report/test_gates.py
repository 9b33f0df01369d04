"""Limits of loss, bytes and latency: how they are written, and when they are kept."""

import dataclasses
from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.report.gates import gate_results, parse_gates
from edgeq.report.verdicts import verdicts
from edgeq.results import (
    Accuracy,
    Gates,
    LedgerTotals,
    Loss,
    LossLimit,
    ParityReport,
    Profile,
    Report,
    RunLedger,
    RunProfile,
    RunRecord,
    Score,
    StoredBytes,
    Timing,
)
from tests.edgeq.runs import about, write_record


def _ledger(stored_bytes: int) -> RunLedger:
    sizes = {field.name: 0 for field in dataclasses.fields(LedgerTotals)}
    totals = sizes | {"ratio": 4.0, "paper_ratio": 4.0, "stored_bytes": stored_bytes}
    book = StoredBytes("x", "bundle", LedgerTotals(**totals), ())
    return RunLedger(float=book, checkpoint=book, onnx=book, bundles={"host": book})


def _profile(milliseconds: float) -> Profile:
    timing = Timing(1e-3 * milliseconds, 1e-3 * milliseconds, 0.0, 1e-3 * milliseconds, 1)
    return Profile(
        bundle="x", target="host", sequence=8, batch=1, threads=1, rounds=1, timings={"edgeq": timing}, speedups={},
        operators=(), missing={}, machine={}, others=None,
    )  # fmt: skip


def _report(
    gates: Gates | None, *, value: float = 0.86, low: float = 0.002, high: float = 0.012, metric: str = "spearman"
) -> Report:
    reference = 0.87 if metric == "spearman" else 20.0
    accuracy = Accuracy(
        measured=True,
        metric=metric,
        examples=1500,
        stages={"torch float32": Score(reference), "bundle host": Score(value)},
        losses={"bundle host": Loss(abs(reference - value), low, high, value / reference)},
    )
    profile = RunProfile({"host": _profile(6.0), "host, reading": _profile(60.0)}, {})
    return Report("1.0", about(gates=gates), accuracy, ParityReport(()), _ledger(8_000_001), profile)


@pytest.mark.parametrize("text", ["", "much", "-1%", "1%%", "nan"])
def test_what_is_no_loss_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-loss"):
        parse_gates(max_loss=text, max_bytes=None, max_ms=None)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_latency_is_refused(number: float) -> None:
    with pytest.raises(UsageError, match="--max-ms"):
        parse_gates(max_loss=None, max_bytes=None, max_ms=number)


def test_limits_survive_the_file_of_a_run(tmp_path: Path) -> None:
    gates = parse_gates(max_loss="1.5%", loss_at="middle", max_bytes="8MB", max_ms=6)
    assert gates.any
    write_record(tmp_path, gates=gates)
    assert RunRecord.read(tmp_path / "deploy.json").about.gates == gates
    assert not parse_gates(max_loss=None, max_bytes=None, max_ms=None).any


@pytest.mark.parametrize(
    ("text", "end", "passed"),
    [
        ("1", "middle", True),  # a loss of 0.01 is one point
        ("0.9", "middle", False),
        ("1", "interval", False),  # which reaches to 0.012
        ("1.2", "interval", True),
        ("1.2%", "middle", True),  # 0.01 of 0.87 is 1.15 per cent
        ("1.1%", "middle", False),
    ],
)
def test_a_loss_is_held_against_its_limit(text: str, end: str, passed: bool) -> None:
    gates = parse_gates(max_loss=text, loss_at=end, max_bytes=None, max_ms=None)
    (result,) = gate_results(_report(gates, value=0.86000001))
    assert result.passed == passed


def test_points_of_perplexity_are_its_units() -> None:
    gates = Gates(LossLimit(2.0, relative=False, end="middle"))
    assert gate_results(_report(gates, value=21.9, low=1.0, high=3.0, metric="perplexity"))[0].passed
    assert not gate_results(_report(gates, value=22.1, low=1.0, high=3.0, metric="perplexity"))[0].passed


def test_too_few_examples_to_tell_says_how_many_would() -> None:
    gates = parse_gates(max_loss="1.1", max_bytes=None, max_ms=None)
    (result,) = gate_results(_report(gates, value=0.86))
    assert not result.passed
    # The interval must shrink from 0.002 to 0.001 above the loss: four times the examples.
    assert "about 6000 would" in result.sentence


def test_a_loss_that_is_no_number_is_not_kept() -> None:
    gates = parse_gates(max_loss="50%", loss_at="middle", max_bytes=None, max_ms=None)
    report = _report(gates)
    report.accuracy.losses["bundle host"] = Loss(float("nan"), 0.0, 0.0, None)
    assert not gate_results(report)[0].passed


def test_bytes_and_milliseconds_are_held_against_their_limits() -> None:
    kept = gate_results(_report(Gates(max_bytes=8_000_001, max_ms=6.0)))
    assert [one.passed for one in kept] == [True, True]
    broken = gate_results(_report(Gates(max_bytes=8_000_000, max_ms=5.99)))
    assert [one.passed for one in broken] == [False, False]
    assert "8,000,001" in broken[0].sentence
    assert "6.00 ms" in broken[1].sentence


def test_a_run_without_limits_has_no_results() -> None:
    assert gate_results(_report(None)) == []


def test_a_limit_that_is_not_kept_is_a_bad_verdict() -> None:
    report = _report(Gates(max_bytes=10))
    found = [(one.level, one.sentence) for one in verdicts(report) if one.topic == "gate"]
    assert len(found) == 1
    assert found[0][0] == "bad"
    assert found[0][1].startswith("LIMIT NOT KEPT")
