"""Bytes: what a bundle brings beside its model, what an environment takes, memory beyond weights, caches and arena."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import GOLDEN_FILE, LIBRARY_FILE, MAIN, TOKENIZER_TABLE_FILE, WEIGHTS_FILE
from edgeq.targets.runtime.schema import Manifest

_MODEL_FILES = {WEIGHTS_FILE, GOLDEN_FILE, TOKENIZER_TABLE_FILE}
_FIRST_ID = 1000
_SMALL = 1 << 16
_PYTHON_MEMORY = """
import json, sys
import numpy
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
numpy_alone = peak()
import edgeq
bundle = edgeq.load(sys.argv[1], threads=int(sys.argv[2]))
ids = numpy.arange(int(sys.argv[3]))[None] + int(sys.argv[4])
bundle.run({"input_ids": ids})
print(json.dumps({"numpy": numpy_alone, "all": peak()}))
"""


def sizes(bundle: Path) -> dict[str, int]:
    """Bytes of each file of a bundle but weights, tokenizer, golden data and the manifest's own, and their sum."""
    names = [
        name
        for name in read_manifest(bundle).files
        if name not in _MODEL_FILES and not name.endswith((".json", ".txt", ".model"))
    ]
    found = {name: (bundle / name).stat().st_size for name in names}
    return {**found, "all": sum(found.values()), "library": found[LIBRARY_FILE]}


@contextmanager
def runtime_environment(repository: Path) -> Iterator[Path]:
    """An environment that holds ``edgeq[runtime]`` and nothing else, for as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="edgeq-environment-") as folder:
        venv.create(folder, with_pip=False)
        python = str(Path(folder) / "bin" / "python")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", f"{repository}[runtime]"]
        subprocess.run(command, check=True)
        yield Path(folder)


def environment(repository: Path) -> dict[str, Any]:
    """Bytes of an environment that holds ``edgeq[runtime]`` and nothing else, by package."""
    with runtime_environment(repository) as folder:
        packages = next(folder.glob("lib/python*/site-packages"))
        found = {path.name: _bytes(path) for path in sorted(packages.iterdir())}
    numpy = sum(size for name, size in found.items() if name.startswith("numpy"))
    return {"all": sum(found.values()), "without_numpy": sum(found.values()) - numpy, "packages": found}


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if "__pycache__" not in file.parts)


def memory(bundle: Path, *, tokens: int, threads: int) -> dict[str, int]:
    """Bytes that were resident at most, of ``edgeq-run`` and of Python, and what they are beyond weights and arena.

    Of tables that are read by rows, nothing is counted as weights, though some pages are resident. The ids follow each
    other, so these are few. A copy runs whose weights lie in small pages of the system's cache: of large ones, all
    that lies near what is read would be counted too.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-memory-") as folder:
        return _memory_of(_in_small_pages(bundle, Path(folder) / "bundle"), tokens=tokens, threads=threads)


def _in_small_pages(bundle: Path, copy: Path) -> Path:
    shutil.copytree(bundle, copy)
    with (bundle / WEIGHTS_FILE).open("rb") as source, (copy / WEIGHTS_FILE).open("wb", buffering=0) as out:
        while piece := source.read(_SMALL):
            out.write(piece)
    return copy


def _memory_of(bundle: Path, *, tokens: int, threads: int) -> dict[str, int]:
    manifest = read_manifest(bundle)
    weights = _weights_read(manifest)
    with tempfile.NamedTemporaryFile() as file:
        calls = [call_of_main({"input_ids": np.arange(tokens)[None] + _FIRST_ID}, manifest)]
        file.write(encode_calls(calls, tagged=False))
        file.flush()
        command = [str(bundle / "edgeq-run"), str(bundle), "--profile", file.name, "--repeat", "3"]
        printed = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=True)
    program = json.loads(printed.stdout)
    peak, arena = program["peak_bytes"], program["arena_bytes"]
    command = [sys.executable, "-c", _PYTHON_MEMORY, str(bundle), str(threads), str(tokens), str(_FIRST_ID)]
    python = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "weights": weights,
        "arena": arena,
        "program": peak,
        "program_beyond": peak - weights - arena,
        "python": python["all"],
        "python_numpy_alone": python["numpy"],
        "python_beyond": python["all"] - weights - arena,
    }


def _weights_read(manifest: Manifest) -> int:
    """Bytes of the weights that ``main`` reads as a whole."""
    (plan, *_) = manifest.functions[MAIN].plans.values()
    by_rows = {step["args"][step["rows"]["table"]] for step in plan["steps"] if "rows" in step}
    return sum(weight.bytes for index, weight in enumerate(manifest.weights) if f"w{index}" not in by_rows)
