"""The benchmarks of kernels and engines: that they measure, and that they say so rightly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels import run as kernels
from benchmarks.machine import facts, turn_seconds
from benchmarks.speed import run as speed
from benchmarks.speed.contest import Contestant, compete
from benchmarks.speed.works import MODELS, SMOKE_WORKS, WORKS


def test_a_turn_takes_the_fastest_call():
    durations = iter([0.01, 0.01] + [0.01, 0.002, 0.02] * 9)
    naps: list[float] = []

    def call() -> None:
        import time

        naps.append(next(durations))
        time.sleep(naps[-1])

    assert 0.002 <= turn_seconds(call, 0.03)() < 0.01


def test_facts_name_the_processor_and_the_versions():
    found = facts()
    assert {"processor", "cores", "date", "commit", "apache-tvm"} <= found.keys()


def test_a_kernel_is_measured_beside_its_limit(monkeypatch):
    monkeypatch.setattr("benchmarks.kernels.peaks.READ_BYTES", 2**20)
    result = kernels.measure("host", threads=1, rounds=2, only="quantizer of rows of 768, 1 ")
    (row,) = result["kernels"]
    assert row["microseconds"] > 0
    assert np.isclose(row["share"], row["rate"] / result["limits"][row["limit"]])
    assert f"| {row['name']} |" in kernels.table(result)


def test_every_work_has_a_model():
    assert {work.model for work in (*WORKS, *SMOKE_WORKS)} <= MODELS.keys()


@pytest.fixture
def work():
    return SMOKE_WORKS[0]


def test_an_engine_that_fails_is_listed_with_its_reason(work, tmp_path):
    absent = Contestant("edgeq", "edgeq_engine.py", "", Path(sys.executable), tmp_path / "nothing")
    outcomes = compete([absent], work, threads=1, rounds=1, limit=10, scratch=tmp_path)
    assert outcomes["edgeq"].missing.startswith("UsageError: ")
    text = speed.table({"engines": speed._rows(outcomes)})
    assert "| edgeq | missing | UsageError: " in text


def test_the_table_claims_nothing_from_few_rounds():
    from benchmarks.speed.contest import Outcome

    outcomes = {"edgeq": Outcome(rounds=[1.0, 1.0, 1.0]), "peer": Outcome(rounds=[2.0, 2.0, 2.0])}
    assert "no difference beyond noise" in speed.table({"engines": speed._rows(outcomes)})
    outcomes = {"edgeq": Outcome(rounds=[1.0] * 12), "peer": Outcome(rounds=[2.0] * 12)}
    assert "| peer | 2000.00 ms | 2.00x faster" in speed.table({"engines": speed._rows(outcomes)})
