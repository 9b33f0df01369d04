"""``edgeq-run --profile``: what a call costs, as one line of JSON."""

import json
import struct
import subprocess

import numpy as np
import pytest

from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture
def board(make_bundle):
    """The tiny model as it would be copied to a board of this machine's architecture."""
    return make_bundle(NATIVE)


@pytest.fixture
def inputs(board, tmp_path):
    """A file with two calls, of 7 and of 5 tokens."""
    manifest = read_manifest(board)
    calls = [call_of_main({"input_ids": np.ones((1, count), np.int64)}, manifest) for count in (7, 5)]
    path = tmp_path / "inputs"
    path.write_bytes(encode_calls(calls, tagged=False))
    return path


def _run(program, *words, **options):
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def _kernels(measured):
    return {kernel["name"]: kernel for kernel in measured["kernels"]}


def test_a_call_is_timed_whole_and_by_kernel(board, inputs):
    result = _run(board / "edgeq-run", board, "--profile", inputs, "--repeat", 9, "--threads", 1)
    measured = json.loads(result.stdout)
    assert len(measured["seconds"]) == 9
    assert min(measured["seconds"]) > 0
    assert measured["peak_bytes"] > 1e5
    product = _kernels(measured)["matmul"]
    assert (product["calls"], len(product["seconds"])) == (1, 5)
    # The last set counts: 5 tokens in and out, and the matrix, which is a weight.
    assert (product["bytes"], product["weight_bytes"]) == (4 * 12 * (5 + 5 + 12), 4 * 12 * 12)


def test_without_repeats_it_runs_once_for_whoever_counts_instructions(board, inputs):
    measured = json.loads(_run(board / "edgeq-run", board, "--profile", inputs).stdout)
    assert measured["seconds"] == []
    assert all(len(kernel["seconds"]) == 1 for kernel in measured["kernels"])


def test_what_cannot_be_profiled_is_refused(board, inputs, tmp_path):
    (tmp_path / "empty").write_bytes(b"EQT1" + struct.pack("<I", 0))
    for words, message in (
        (["--profile", tmp_path / "empty"], "holds no set of inputs"),
        (["--profile", tmp_path / "none"], "none"),
        (["--profile", inputs, "--self-test"], "give one of"),
    ):
        result = _run(board / "edgeq-run", board, *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_it_is_clean_under_the_sanitizers(board, inputs, sanitized):
    result = _run(sanitized, board, "--profile", inputs, "--repeat", 3, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert (result.returncode, result.stderr) == (0, "")
    assert len(_kernels(json.loads(result.stdout))) > 3
