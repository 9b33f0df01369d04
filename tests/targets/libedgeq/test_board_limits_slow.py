"""What a board must have: the size of runner and runtime, and the memory of a run."""

import json
import shutil
import subprocess

import numpy as np
import pytest

import edgeq
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

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
