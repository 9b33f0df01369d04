"""libedgeq with the sanitizers of clang, compiled once a run."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ


@pytest.fixture(scope="session")
def fuzz() -> Any:
    """The program that builds and runs the harnesses of libFuzzer."""
    spec = importlib.util.spec_from_file_location("edgeq_fuzz", LIBEDGEQ / "fuzz" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fuzz_folder(fuzz: Any, make_once: Callable[..., Path], needs: Callable[..., None]) -> Path:
    """A folder whose ``library`` holds the library's objects with the address and undefined-behaviour sanitizers."""
    needs("clang", "clang-sanitizers")
    return make_once("sanitized-library", lambda folder: fuzz.compile_library(folder / "library"))


@pytest.fixture(scope="session")
def sanitized_program(fuzz: Any, fuzz_folder: Path, make_once: Callable[..., Path]) -> Callable[[Path], Path]:
    """Returns a function that makes a program of a C file and the library, under these sanitizers; once a run."""

    def make(source: Path) -> Path:
        def fill(folder: Path) -> None:
            parts = [source, *fuzz.compile_library(fuzz_folder / "library")]
            command = ["clang", *fuzz.FLAGS, "-fsanitize=address,undefined", *map(str, parts)]
            subprocess.run([*command, "-lm", "-lpthread", "-o", str(folder / source.stem)], check=True)

        return make_once(f"sanitized-{source.stem}", fill) / source.stem

    return make
