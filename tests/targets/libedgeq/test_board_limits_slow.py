"""What a board must have: the size of runner and runtime, the memory of a run, and the time to start."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest

import edgeq
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.toolchain.linkers import find_linker, run_compiler

pytestmark = pytest.mark.slow

KIB, MIB = 1 << 10, 1 << 20
NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
TOKENS = 128


@pytest.fixture(scope="module")
def onnx(minilm, tmp_path_factory):
    root = tmp_path_factory.mktemp("minilm")
    edgeq.compress_model(minilm, root / "checkpoint", recipe="ptq-w8a8")
    edgeq.export_onnx(root / "checkpoint", root / "onnx")
    return root / "onnx"


@pytest.fixture(scope="module")
def board(onnx):
    return edgeq.compile_bundle(onnx, onnx.parent / NATIVE, target=load_target(NATIVE))


def test_program_library_and_code_for_arm_fit_in_600_kib(make_bundle):
    bundle = make_bundle("cortex-a72")
    library = bundle / "lib" / "libedgeq.so"
    files = [bundle / "edgeq-run", library, *(bundle / "code").iterdir()]
    assert library.stat().st_size <= 300 * KIB
    assert sum(path.stat().st_size for path in files) <= 600 * KIB
    if shutil.which("readelf"):
        for path in files:
            sections = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout
            assert ".symtab" not in sections, f"{path.name} is not stripped"


@pytest.fixture(scope="module")
def small_pages(board):
    """The bundle with weights in small pages: in large ones, all that lies near what is read would be counted too."""
    copy = shutil.copytree(board, board.with_name("small-pages"))
    with (board / "weights.bin").open("rb") as source, (copy / "weights.bin").open("wb") as out:
        while piece := source.read(64 * KIB):
            out.write(piece)
            out.flush()
    return copy


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_weights_arena_and_2_mib(small_pages, tmp_path, threads):
    board, manifest = small_pages, read_manifest(small_pages)
    (plan,) = manifest.functions["main"].plans.values()
    by_rows = {step["args"][step["rows"]["table"]] for step in plan["steps"] if "rows" in step}
    assert by_rows
    given = {"input_ids": np.arange(TOKENS)[None] + 1000}
    (tmp_path / "inputs").write_bytes(encode_calls([call_of_main(given, manifest)], tagged=False))
    command = [board / "edgeq-run", board, "--profile", tmp_path / "inputs", "--repeat", "3", "--threads", str(threads)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # Of tables that are read by rows few pages are ever in memory, as the ids follow each other.
    weights = sum(weight.bytes for index, weight in enumerate(manifest.weights) if f"w{index}" not in by_rows)
    assert weights < measured["peak_bytes"] <= weights + measured["arena_bytes"] + 2 * MIB


@pytest.fixture
def empty(tmp_path):
    """A static program that does nothing."""
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    arguments = ["-static", str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")]
    run_compiler(find_linker(load_target("host")), arguments, purpose="build an empty program")
    return tmp_path / "empty"


@pytest.mark.parametrize("options", [[], ["--threads", "1"]], ids=["as-it-is", "one-thread"])
def test_it_starts_within_three_times_an_empty_program(board, empty, options):
    """The least of many starts, in turns."""
    text = [board / "edgeq-run", board, "--text", "A cat sat on the mat.", *options]
    nothing, once, often = np.min([_seconds([empty], text, [*text, "--repeat", "20"]) for _ in range(40)], axis=0)
    # The first call is not among the 20, so what one costs is their difference.
    model = (often - once) / 20
    assert once - model <= 3 * nothing


def _seconds(*commands):
    """Seconds from the start of each program to its end."""
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    taken = []
    for command in commands:
        arguments = list(map(str, command))
        began = time.perf_counter()
        process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=silent)
        _, status = os.waitpid(process, 0)
        taken.append(time.perf_counter() - began)
        assert status == 0
    return taken
