"""The runtime's benchmark: what is made of times that both formats took, and a process that answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runtime import format_1

REPOSITORY = Path(format_1.__file__).parents[2]


def test_ratios_are_those_of_each_round():
    found = format_1._compared({"1": [1.0, 2.0, 4.0], "2": [0.5, 2.0, 3.0]})
    assert found == {"format_1_ms": 2000.0, "format_2_ms": 2000.0, "ratio": 0.75, "ratios": [0.5, 1.0]}


def test_native_files_are_code_libraries_and_the_program(tmp_path):
    for name in ("code/host.so", "lib/libtvm_ffi.so", "edgeq-run", "weights.bin", "manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(7))
    assert format_1.native_bytes(tmp_path) == 21


def test_a_process_that_ends_is_an_error(tmp_path):
    worker = format_1._worker(REPOSITORY, tmp_path / "none", tmp_path / "none", 1)
    with worker as process, pytest.raises(RuntimeError, match="ended: 1"):
        format_1._answer(process)


def test_a_process_answers_with_times_and_a_digest(tmp_path):
    """A work of its own, since the real ones take models of a real size."""
    code = "import json, time; from either_format import _timed; print(json.dumps(_timed(lambda: time.sleep(0.03))))"
    folder = Path(format_1.__file__).parent
    printed = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    answer = json.loads(printed.stdout)
    assert len(answer["seconds"]) >= 5
    assert answer["processor_seconds"] < max(answer["seconds"])  # it sleeps
    assert sum(answer["seconds"]) >= 0.15
    assert len(answer["digest"]) == 64
