"""The benchmarks of kernels and engines: that they measure, and that they say so rightly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels import run as kernels
from benchmarks.machine import facts, turn_seconds
from benchmarks.speed import footprint, results, tables
from benchmarks.speed import run as speed
from benchmarks.speed.benchmarks import AVX2, BENCHMARKS, MODELS, SMOKE_BENCHMARKS, multiply_adds
from benchmarks.speed.disassembly import count_avx512
from benchmarks.speed.footprint_goals import limits
from benchmarks.speed.goals import GOALS, verdicts
from benchmarks.speed.setups import FLOOR, PEERS, Setup, own, peers
from benchmarks.speed.turns import ENGINES, Engine, Outcome, run_in_turns


def test_a_turn_takes_the_fastest_call(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.machine.time.perf_counter", lambda: clock[0])
    durations = iter([0.01, 0.01, 0.001, 0.01, 0.004, 0.02])

    def call() -> None:
        clock[0] += next(durations)

    # One call to warm up and one to see how long it takes; then one that is not counted and as many as fit.
    assert np.isclose(turn_seconds(call, 0.03)(), 0.004)


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


FAKE_ENGINE = """
import os, subprocess, sys, time
sys.path.insert(0, {engines!r})
import numpy as np
from turns import serve

def make(folder, variant):
    if variant == "impossible":
        raise ValueError("no such variant")
    (folder / variant).touch()
    if variant == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
        (folder / variant).write_text(str(child.pid))

def load(request):
    if request["variant"] == "broken":
        raise ValueError("does not run this")
    seconds = float(request["variant"])
    output = np.append(np.full(7, request["batch"]), len(os.sched_getaffinity(0)))
    output[:7] *= int(os.environ.get("FAKE_SIGN", "1"))

    calls = []

    def call():
        if calls:
            raise RuntimeError("the call before was not undone")
        calls.append(1)
        time.sleep(seconds)
        return output[None][: int(os.environ.get("FAKE_ROWS", "1"))]

    return call, calls.clear

serve(load, make=make, packages=("numpy",))
"""


@pytest.fixture
def fake(tmp_path):
    script = tmp_path / "fake_engine.py"
    script.write_text(FAKE_ENGINE.format(engines=str(ENGINES)))
    return lambda name, variant, **more: Setup(
        name, str(script), variant, Path(sys.executable), tmp_path, **{"bits": 8, **more}
    )


@pytest.fixture
def work():
    return SMOKE_BENCHMARKS[0]


def test_every_work_has_a_model_and_every_goal_a_work():
    assert {work.model for work in (*BENCHMARKS, *SMOKE_BENCHMARKS)} <= MODELS.keys()
    setups = {(work.name, recipe) for work in BENCHMARKS for recipe in work.recipes}
    assert {(goal.work, goal.recipe) for goal in GOALS} <= setups


def test_the_floor_counts_the_products_with_weights():
    bert = next(work for work in BENCHMARKS if work.name == "BERT-base, 128 tokens")
    assert multiply_adds(bert) == 128 * 12 * 12 * 768 * 768
    step = next(work for work in BENCHMARKS if work.name == "GPT-2 small, step after 160, batch 4")
    assert multiply_adds(step) == 4 * (12 * 12 * 768 * 768 + 768 * 50257)


def test_only_engines_that_can_be_held_to_avx2_take_part_there(tmp_path):
    work = next(work for work in BENCHMARKS if work.target == AVX2)
    found = peers(work, models=tmp_path, python=Path(sys.executable))
    assert {peer.script for peer in found} == {"torch_engine.py", "openvino_engine.py", "ctranslate2_engine.py"}
    assert all(peer.environment["ONEDNN_MAX_CPU_ISA"] == "AVX2" for peer in found)
    assert all(AVX2 in str(entry.folder) for entry in own(work, models=tmp_path)[:-1])


def test_programs_whose_start_is_measured_are_peers():
    assert set(footprint._TAKING_PART) <= {name for name, *_ in PEERS}


def test_engines_take_turns_on_as_many_cores_as_threads(fake, work, tmp_path):
    setups = [fake("slow", "0.006"), fake("edgeq w8a8", "0.002"), fake("gone", "broken")]
    outcomes = run_in_turns(setups, work, threads=1, rounds=8, limit=10, scratch=tmp_path)
    assert outcomes["gone"].missing == "ValueError: does not run this"
    assert outcomes["slow"].versions == {"numpy": np.__version__}
    assert np.isclose(outcomes["edgeq w8a8"].similarity, 1)
    assert np.load(tmp_path / "slow.npy")[0, -1] == 1
    rows = speed.rows(outcomes, {setup.name: 8 for setup in setups})
    assert rows[1]["versus"]["slow"]["ratio"] > 1.5


def test_an_engine_that_computes_something_else_is_taken_out(fake, work, tmp_path):
    reference, other = fake("reference", "0"), fake("other", "0", environment={"FAKE_SIGN": "-1"})
    outcomes = run_in_turns([reference, other], work, threads=1, rounds=1, limit=10, scratch=tmp_path)
    assert outcomes["other"].missing.startswith("computes something else: cosine with the reference -")
    assert not outcomes["reference"].missing


def test_an_engine_that_computes_nothing_is_taken_out(fake, work, tmp_path):
    reference, other = fake("reference", "0"), fake("other", "0", environment={"FAKE_ROWS": "0"})
    outcomes = run_in_turns([reference, other], work, threads=1, rounds=1, limit=10, scratch=tmp_path)
    assert outcomes["other"].missing == "its output has 0 numbers, the reference's 8"


def test_an_engine_makes_files_until_told_to_stop(fake, tmp_path):
    engine = Engine(fake("fake", "0"), 1)
    assert engine.make("first") == engine.make("second") == {"made": True}
    assert engine.make("impossible") == {"missing": "ValueError: no such variant"}
    engine.stop()
    assert {"first", "second"} <= {path.name for path in tmp_path.iterdir()}


def test_a_process_that_an_engine_started_is_not_waited_for(fake, tmp_path):
    """OpenVINO starts one for telemetry, which keeps the engine's pipes open."""
    engine = Engine(fake("fake", "0"), 1)
    assert engine.make("child") == {"made": True}
    engine.stop()
    child = int((tmp_path / "child").read_text())
    os.kill(child, signal.SIGKILL)  # it is still there


def test_a_bundle_that_is_not_there_is_listed_with_its_reason(work, tmp_path):
    absent = Setup("edgeq w8a8", "edgeq_engine.py", "", Path(sys.executable), tmp_path / "nothing", 8)
    outcomes = run_in_turns([absent], work, threads=1, rounds=1, limit=10, scratch=tmp_path)
    assert outcomes["edgeq w8a8"].missing.startswith("UsageError: ")
    assert "| edgeq w8a8 | missing: UsageError: " in tables.speed_table(_entry(outcomes, {"edgeq w8a8": 8}))


def _entry(outcomes, bits, name="BERT-base, 128 tokens", **work):
    return {
        "kind": results.SPEED, "name": name, "threads": 2, "rounds": 12, "machine": facts(), "versions": {},
        "compiler": "", "work": {"batch": 1, "kind": "encode", **work}, "engines": speed.rows(outcomes, bits),
    }  # fmt: skip


def _steady(seconds):
    return Outcome(rounds=[seconds] * 12)


def test_the_table_claims_nothing_from_few_rounds():
    outcomes = {"edgeq w8a8": Outcome(rounds=[1.0] * 3), "peer": Outcome(rounds=[2.0] * 3)}
    bits = {"edgeq w8a8": 8, "peer": 8}
    assert "| within noise (too few rounds) |" in tables.speed_table(_entry(outcomes, bits))
    outcomes = {"edgeq w8a8": _steady(1.0), "peer": _steady(2.0)}
    assert "| peer | 2000.00 ms | 2.00x (2.00 to 2.00) |" in tables.speed_table(_entry(outcomes, bits))


def test_goals_are_judged_against_the_best_engine_and_the_best_at_the_same_bits():
    outcomes = {"edgeq w2a8": _steady(1.0), "edgeq w8a8": _steady(1.5), "edgeq w4a8": _steady(1.0)}
    outcomes |= {"ONNX Runtime float32": _steady(4.0), "eight": _steady(1.3), "four": _steady(2.0)}
    outcomes[FLOOR] = _steady(0.5)
    bits = {"edgeq w2a8": 2, "edgeq w4a8": 4, "edgeq w8a8": 8, "eight": 8, "four": 4, FLOOR: 0}
    entry = _entry(outcomes, {"ONNX Runtime float32": 32, **bits})
    found = {(v.goal.recipe, v.goal.against): (v.peer, round(v.found, 3), v.is_met) for v in verdicts(entry)}
    assert found["ptq-w2a8", "best engine"] == ("eight", 1.3, True)
    assert found["ptq-w2a8", "ONNX Runtime float32"] == ("ONNX Runtime float32", 4.0, True)
    assert found["ptq-w2a8", "integer floor"] == (FLOOR, 2.0, False)
    assert found["ptq-w4a8", "best engine at the same bits"] == ("four", 2.0, True)
    assert found["ptq-w8a8", "best engine at the same bits"] == ("eight", 0.867, False)
    page = tables.document([entry], source="results.json")
    assert "- BERT-base, 128 tokens, 2 threads: edgeq w8a8 is slower than eight." in page
    assert "| ≤ 1.45 | 2.00 (2.00 to 2.00) | **missed** |" in page


def test_a_batch_is_compared_with_one_text_by_texts_a_second():
    outcomes = {"edgeq w2e2a8": _steady(1.6), "edgeq w2e2a8, batch 1": _steady(1.0), "peer": _steady(1.7)}
    name = "GPT-2 small, step after 160, batch 4"
    entry = _entry(outcomes, dict.fromkeys(outcomes, 2), name, batch=4, kind="step")
    (verdict,) = verdicts(entry)
    assert (round(verdict.found, 3), verdict.is_met) == (2.5, True)
    assert "| edgeq w2e2a8, batch 1 | 1000.00 ms | 1 |" in tables.speed_table(entry)


def test_a_programs_peak_memory_is_its_own_and_not_the_benchmarks():
    ballast = np.ones(2**25)  # 256 MiB in this process
    found = footprint._program([sys.executable, "-S", "-c", "pass"])
    assert ballast[-1] == 1
    assert found["peak_kib"] < 2**16
    assert footprint._program([sys.executable, "-c", "raise SystemExit(3)"])["missing"].endswith("ended with status 3")


def test_avx512_is_known_by_its_registers_and_masks():
    listing = """
    vpaddd %ymm1,%ymm15,%ymm2
    kmovq  %kernel,%rax
    vpdpbusd %zmm1,%zmm2,%zmm3
    vmovdqu32 %ymm17,(%rax)
    vpaddd (%rax){1to8},%ymm1,%ymm2
    vmovdqu8 %ymm1,(%rax){%k1}
    """
    assert count_avx512(listing) == 4


def test_memory_and_loading_are_judged_beside_onnx_runtime():
    def row(name, seconds, mib):
        return {"name": name, "missing": "", "process_seconds": 1.0, "load_seconds": seconds, "peak_kib": mib * 1024}

    rows = [row("ONNX Runtime MatMulNBits 2", 0.3, 300), row("ONNX Runtime float32", 0.6, 600)]
    rows += [row("edgeq w2e2a8", 0.09, 160), row("edgeq w2e2a8, C runner (x86-64-v3)", None, 80)]
    start = {"kind": results.START, "name": footprint.STARTS[0].name, "engines": rows}
    found = [(limit.found <= limit.most, limit.unit) for limit in limits(start)]
    assert found == [(False, "MiB"), (True, "MiB"), (True, "s")]
    compiling = {"kind": results.COMPILE, "name": "bert-base", "engines": [row("edgeq compile", None, 4096)]}
    assert [limit.found <= limit.most for limit in limits(compiling)] == [True, False]


def test_an_entry_takes_the_place_of_the_older_one(tmp_path):
    first, other = (_entry({"edgeq w2a8": _steady(1.0)}, {"edgeq w2a8": 2}, name) for name in ("one", "two"))
    entries = results.put(results.put([], first), other)
    again = first | {"rounds": 20}
    results.write(tmp_path / "results.json", results.put(entries, again))
    read = results.read(tmp_path / "results.json")
    assert [(entry["name"], entry["rounds"]) for entry in read] == [("one", 20), ("two", 12)]
    assert results.find(read, results.SPEED, "one", 1) is None


@pytest.mark.slow
def test_every_engine_runs_tiny_models_and_computes_the_same(tmp_path):
    python = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
    if not python.exists():
        pytest.skip("the peers are not installed: python -m benchmarks.speed.peers .venv-peers")
    command = [sys.executable, "-m", "benchmarks.speed.run", "--smoke", "--threads", "1"]
    command += ["--models", str(tmp_path), "--out", str(tmp_path / "results.json"), "--peers-python", str(python)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=1800)
    entries = results.read(tmp_path / "results.json")
    assert {entry["name"] for entry in entries} == {work.name for work in (*SMOKE_BENCHMARKS, *footprint.SMOKE_STARTS)}
    missing = {row["name"]: row["missing"] for entry in entries for row in entry["engines"] if row["missing"]}
    # llama.cpp's formats with blocks of 256 do not fit rows of 128; bfloat16 is not on every processor.
    may_lack = {"llama.cpp Q4_K", "llama.cpp Q2_K", "llama.cpp TQ2_0", "CTranslate2 int8, rest bfloat16"}
    assert missing.keys() <= may_lack
