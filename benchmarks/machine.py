"""What a reader needs to judge a measurement, and how single calls are timed."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("edgeq", "apache-tvm", "onnxruntime", "openvino", "nncf", "llama-cpp-python", "torch", "transformers")

_SHORTEST = 2e-5
"""Shorter times are not worth much."""


def facts() -> dict[str, str]:
    """Returns processor, cores, load, date, commit and the versions of what is installed."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} available of {os.cpu_count()}",
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def turn_seconds(call: Callable[[], object], turn: float) -> Callable[[], float]:
    """Returns a function that makes calls for about ``turn`` seconds and returns the seconds of the fastest.

    The first call of a turn is not counted: it brings the data into the caches. Short calls are timed some at once.
    """
    call()
    once = max(_seconds(call, 1), 1e-7)
    together = max(1, int(_SHORTEST / once))
    count = max(1, int(turn / (once * together)))

    def timer() -> float:
        call()
        return min(_seconds(call, together) for _ in range(count))

    return timer


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"
