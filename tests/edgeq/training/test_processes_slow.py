"""Runs in processes of their own: killed with signal 9, and spread over two processes by accelerate."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from edgeq.checkpoint import load_checkpoint

PROGRAM = pathlib.Path(__file__).with_name("small_run.py")
ONE = [sys.executable, str(PROGRAM)]
LAUNCH_TWO = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
TWO = [*LAUNCH_TWO, str(PROGRAM)]
pytestmark = pytest.mark.slow


def environment():
    # accelerate knows no flag for several processes on CPUs; this makes of --multi_gpu the same on CPUs.
    own = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[3])}
    return {**os.environ, **own}


def finish(command, out):
    done = subprocess.run([*command, str(out)], env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(f"{out}.safetensors")


def kill_after_some_steps(command, out, *, states):
    """Starts a run slowly, and kills all its processes once it has saved so many states."""
    run = subprocess.Popen([*command, str(out), "0.3"], env=environment(), start_new_session=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        until = time.monotonic() + 300
        while not any(int(path.name[6:]) >= 2 * states for path in out.glob("state-*")):
            assert run.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < until, "the run makes no progress"
            time.sleep(0.05)
        time.sleep(0.1 * states)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not out.with_suffix(".safetensors").exists()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return finish(ONE, tmp_path_factory.mktemp("runs") / "single")


@pytest.fixture(scope="module")
def double_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "double"


@pytest.fixture(scope="module")
def double(double_folder):
    return finish(TWO, double_folder)


@pytest.mark.parametrize("states", [1, 8])
def test_a_killed_run_ends_as_an_undisturbed_one(single, tmp_path, states):
    kill_after_some_steps(ONE, tmp_path / "run", states=states)
    assert_same(single, finish(ONE, tmp_path / "run"))


def test_two_processes_train_the_same_model(single, double, double_folder):
    assert json.loads((double_folder / "run.json").read_text())["processes"] == 2
    lines = [json.loads(line) for line in (double_folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12, 16, 20, 24]
    for name, value in single.items():
        if name.endswith("weight") and value.ndim == 2:
            # Sums of gradients in another order, through Adam and quantizers: nearly the same, not the same.
            close = torch.isclose(double[name], value, rtol=0, atol=2e-3).float().mean()
            assert close > 0.97, name


def test_two_processes_resume_bit_for_bit(double, tmp_path):
    kill_after_some_steps(TWO, tmp_path / "run", states=5)
    assert_same(double, finish(TWO, tmp_path / "run"))


def test_a_run_is_resumed_with_as_many_processes(tmp_path):
    kill_after_some_steps(TWO, tmp_path / "run", states=1)
    done = subprocess.run([*ONE, str(tmp_path / "run")], env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "has another processes (2, not 1)" in done.stderr




def test_the_command_line_in_two_processes(make_bert, tmp_path):
    (tmp_path / "data.tsv").write_text("sentence\tlabel\n" + "the good cat\t1\na lazy dog\t0\n" * 12)
    (tmp_path / "recipe.toml").write_text(
        'extends = "xtc-l12-w2a8"\nname = "tiny"\n[layers]\nkeep = [0, 1]\n'
        "[training]\nbatch_size = 4\nmax_length = 16\n"
    )
    model = make_bert("BertForSequenceClassification")
    options = ["--recipe", str(tmp_path / "recipe.toml"), "--train-data", str(tmp_path / "data.tsv"), "--epochs", "1"]
    edgeq = str(pathlib.Path(sys.executable).with_name("edgeq"))
    command = [*LAUNCH_TWO, edgeq, "compress", str(model), str(tmp_path / "out"), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out-training" / "run.json").read_text())["processes"] == 2
    load_checkpoint(tmp_path / "out")
