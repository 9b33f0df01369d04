"""Makes the environment of the peers, apart from edgeq's: each wants its own versions of shared packages.

    python -m benchmarks.speed.peers .venv-peers

llama.cpp is compiled here, for this processor, which takes some minutes. A peer that cannot be installed is named and
left out; the benchmark lists it as missing. Flags for installing torch come from the variable TORCH_PIP_FLAGS.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_PINNED = Path(__file__).with_name("peers.txt")
_LLAMA = "llama-cpp-python==0.3.36"
_TILE_CONFIG = Path(__file__).with_name("tile_config.h")
_LLAMA_BUILD = f"-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF {shlex.quote(f'-DCMAKE_CXX_FLAGS=-include{_TILE_CONFIG}')}"
"""Every instruction that this processor has, AMX as it must be compiled, and nothing for images."""


def main() -> int:
    """Installs everything that is not there; returns 1 if something could not be installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the environment")
    folder = parser.parse_args().folder
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    flags = shlex.split(os.environ.get("TORCH_PIP_FLAGS", ""))
    steps: tuple[tuple[str, list[str], dict[str, str]], ...] = (
        ("torch", [*flags, _torch()], {}),
        ("the peers from wheels", ["-r", str(_PINNED), _torch()], {}),
        ("llama.cpp, compiled for this processor", ["--no-binary", "llama-cpp-python", _LLAMA], _llama_environment()),
    )
    failed = [what for what, arguments, environment in steps if not _install(folder, what, arguments, environment)]
    for what in failed:
        print(f"not installed: {what}; the benchmark will list it as missing", file=sys.stderr)
    return 1 if failed else 0


def _install(folder: Path, what: str, arguments: Sequence[str], environment: dict[str, str]) -> bool:
    print(f"installing {what}", flush=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    return subprocess.run([*command, *arguments], env=os.environ | environment, check=False).returncode == 0


def _torch() -> str:
    """The version that edgeq itself is pinned to: the reference of all outputs."""
    lines = (_REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.split("#")[0].strip() for line in lines if line.startswith("torch=="))


def _llama_environment() -> dict[str, str]:
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
    return {"CMAKE_ARGS": _LLAMA_BUILD, "CMAKE_BUILD_PARALLEL_LEVEL": jobs}


if __name__ == "__main__":
    raise SystemExit(main())
