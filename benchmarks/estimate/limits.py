"""What this machine gives one core: measured by ``limits.c``, and what an estimate assumes because of it."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edgeq.targets.builtin.target import ProcessorModel

_MIB = 1024 * 1024 / 1e6
"""Megabytes."""
_FAR_FROM_OWN = 4
"""A buffer of as many times the core's own cache comes from the next one, almost all of it."""


def machine_limits() -> dict[str, Any]:
    """Returns clock, bandwidth, and the rates of passes over buffers by their size in MiB, of one core."""
    source = Path(__file__).parent / "limits.c"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        flags = ["-O3", "-march=native", "-std=gnu11"]
        subprocess.run(["cc", *flags, "-o", str(program), str(source)], check=True, timeout=120)
        result = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=300)
    return json.loads(result.stdout)


def better_limits(now: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the better of two measurements, value by value."""
    if earlier is None:
        return now
    return {
        name: better_limits(value, earlier[name]) if isinstance(value, dict) else max(value, earlier[name])
        for name, value in now.items()
    }


def own_cache_mib() -> float:
    """Returns the size of the second cache of the first core, as Linux shows it, or 0 if there is none."""
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "level").read_text().strip() == "2":
            return int((folder / "size").read_text().strip().removesuffix("K")) / 1024
    return 0.0


def processor_of(limits: dict[str, Any], *, model: str, own_cache_mib: float) -> ProcessorModel:
    """Returns what an estimate assumes of this machine.

    How much the last cache holds is measured, not asked for: other programs, and other guests of a virtual machine,
    have their part of it. It is the largest buffer whose passes are nearer to the cache's rate than to the memory's.

    Args:
        limits: What :func:`machine_limits` found.
        model: LLVM's name of the processor.
        own_cache_mib: Size of the core's own cache.
    """
    passes = {int(size): rate for size, rate in limits["passes"].items()}
    memory = limits["gigabytes_per_second"]
    cache = next((rate for size, rate in sorted(passes.items()) if size >= _FAR_FROM_OWN * own_cache_mib), memory)
    middle = math.sqrt(cache * memory)
    held = max((size for size, rate in passes.items() if rate > middle), default=own_cache_mib)
    return ProcessorModel(
        model,
        gigahertz=limits["gigahertz"],
        gigabytes_per_second=memory,
        cache_megabytes=max(held, own_cache_mib) * _MIB,
        core_cache_megabytes=own_cache_mib * _MIB,
        cache_gigabytes_per_second=cache,
    )
