"""A caller's own threads, processors and memory, calls that are ended, a full disk, and files from elsewhere."""

import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeq.targets.bundle.packing import pack_bundle
from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

SOURCE = Path(__file__).with_name("interface.c")
NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture(scope="module")
def interface(sanitized_program):
    """Returns a function that runs the program above under the sanitizers."""
    program = sanitized_program(SOURCE)

    def run(bundle, what):
        command = [str(program), str(bundle), what]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert (result.returncode, result.stdout) == (0, "right\n"), result.stdout + result.stderr

    return run


@pytest.mark.parametrize("what", ["threads", "processors", "end", "arena"])
def test_what_the_header_says_of_a_caller(interface, gpt2_bundle, what):
    interface(gpt2_bundle, what)


def test_a_packed_bundle_in_memory(interface, gpt2_bundle, tmp_path):
    interface(pack_bundle(gpt2_bundle, tmp_path / "model.edgeq"), "memory")


def _run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60, **options)


def test_a_full_disk_is_a_sentence_and_leaves_no_file(make_bundle, tmp_path):
    """Standard output on a full device, and a file for tensors that may not grow."""
    board = make_bundle(NATIVE)
    (tmp_path / "ids").write_text("2 5 6 3\n" * 400)
    with open("/dev/full", "w") as full:
        command = [board / "edgeq-run", board, "--ids", tmp_path / "ids"]
        result = subprocess.run(list(map(str, command)), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "cannot write to standard output: No space left on device" in result.stderr
    call = call_of_main({"input_ids": np.full((8, 20), 5)}, read_manifest(board))
    (tmp_path / "in").write_bytes(encode_calls([call], tagged=False))

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = [board / "edgeq-run", board, "--tensors", tmp_path / "in", "--out", tmp_path / "out"]
    result = _run(*command, preexec_fn=small_files)
    assert result.returncode == 1
    assert f"cannot write {tmp_path / 'out'}" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids", "in"]


@pytest.mark.parametrize(
    ("name", "at", "data"),
    [
        (f"code/{NATIVE}.so", 5, b"\x02"),  # the other byte order
        (f"code/{NATIVE}.so", 18, b"\x16\x00"),  # another processor
        ("tokenizer.bin", 0, b"2NEKOTQE"),  # the other byte order
        ("tokenizer.bin", 0, b"EQTOKEN9"),  # of a later version
    ],
)
def test_foreign_and_future_files_are_sentences(make_bundle, copy_of, sanitized, name, at, data):
    bundle = copy_of(make_bundle(NATIVE))
    content = bytearray((bundle / name).read_bytes())
    content[at : at + len(data)] = data
    (bundle / name).write_bytes(content)
    result = _run(sanitized, bundle, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert Path(name).name in result.stderr
    assert len(result.stderr.splitlines()) == 1
