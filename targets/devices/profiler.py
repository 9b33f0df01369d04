"""Measures a bundle beside ONNX Runtime on the same model, on the same threads, in the same minutes.

The bundle and the baselines take turns. In each round every one of them, in an order that changes from round to
round, rests until the thread pools of the others have stopped spinning, makes a call that does not
count, and then some that do. See :mod:`edgeq.targets.devices.timing` for what is claimed from the times.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, UsageError
from edgeq.progress import Progress, silent
from edgeq.results import KernelShare, Profile
from edgeq.targets.devices.int8_baseline import quantize_elsewhere
from edgeq.targets.devices.timing import claim, paired_speedup, summarize
from edgeq.targets.devices.workload import Workload, fitting_sequence, make_reading, make_workload
from edgeq.targets.runtime.kernel_times import KernelTime
from edgeq.targets.runtime.loader import load

Call = Callable[[], Any]
"""One call of a backend with inputs that are always the same."""

EDGEQ = "edgeq"
ORT_FLOAT32 = "onnxruntime float32"
ORT_INT8 = "onnxruntime int8 dynamic"

MOST_OTHERS = 0.2
"""Largest share of processor time that other programs may take where a ratio is stated: engines suffer differently from
them, since each waits for its threads in its own way."""
_REST_SECONDS = 0.02
"""Longer than the threads of edgeq and ONNX Runtime spin after their last task."""
_CALLS_SECONDS = 0.05
"""A turn lasts about this long, and makes at least one call."""
_KERNEL_RUNS = 5
"""Runs over which the time of each kernel is taken; the median run of each counts."""


def profile_bundle(
    bundle: str | Path,
    *,
    float_onnx: str | Path | None = None,
    sequence: int | None = None,
    batch: int = 1,
    threads: int = 2,
    rounds: int = 30,
    reading: bool = False,
    progress: Progress = silent,
) -> Profile:
    """Measures a bundle, and ONNX Runtime float32 and dynamic int8 if the float model is given.

    Args:
        bundle: A bundle for this machine.
        float_onnx: Folder (or file) of the same model, exported without compression.
        sequence: Tokens in each text; for a decoder those in the cache before the step that is timed. None is 128, or
            as many as the model takes.
        batch: Texts in a call.
        threads: Threads of the bundle and of the baselines.
        rounds: Rounds in which they take turns; fewer than 6 support no claim.
        reading: Time the encoder of an encoder-decoder instead of a step. The bundle then also computes the keys and
            values that the decoder looks at, which the baselines leave to its first step.
        progress: Told after each round.

    Raises:
        UsageError: If the bundle is missing, or a number is out of range.
        UnsupportedError: If the bundle is for another machine: an emulator says nothing about latency.
    """
    if min(batch, threads, rounds) < 1:
        raise UsageError("batch, threads and rounds must be at least 1")
    loaded = load(bundle, threads=threads)
    sequence = fitting_sequence(loaded.manifest, sequence, reading=reading)
    work = (make_reading if reading else make_workload)(loaded, batch=batch, sequence=sequence)
    machine = _machine()
    missing: dict[str, str] = {}
    with _baselines(float_onnx, work, threads=threads, missing=missing) as baselines:
        timed = {EDGEQ: lambda: work.run(loaded), **baselines}
        before = _processor_seconds()
        times = take_turns(timed, rounds=rounds, progress=progress)
        others = _others_share(before, _processor_seconds())
    per_round = {name: [float(np.median(turn)) for turn in turns] for name, turns in times.items()}
    speedups = {name: paired_speedup(per_round[name], per_round[EDGEQ]) for name in times if name != EDGEQ}
    return Profile(
        bundle=str(bundle),
        target=loaded.manifest.name,
        sequence=sequence,
        batch=batch,
        threads=threads,
        rounds=rounds,
        timings={name: summarize([call for turn in turns for call in turn]) for name, turns in times.items()},
        speedups={name: claim(one, others=others, most_others=MOST_OTHERS) for name, one in speedups.items()},
        operators=operators_of([work.time_kernels(loaded) for _ in range(_KERNEL_RUNS)]),
        missing=missing,
        machine=machine,
        others=others,
        step=work.is_step,
        source=work.source if work.is_step else 0,
        reading=reading,
    )


def take_turns(
    timed: Mapping[str, Call],
    *,
    rounds: int,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
) -> dict[str, list[list[float]]]:
    """Times calls in rounds.

    Args:
        timed: The calls by name.
        rounds: How often each has its turn.
        progress: Told after each round.
        clock: Tells the seconds.
        rest: Waits for so many seconds before a turn.

    Returns:
        For each name, for each round, the seconds of its calls in that round.
    """
    calls = {name: _calls_for(call, clock) for name, call in timed.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in timed}
    names = list(timed)
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            rest(_REST_SECONDS)
            timed[name]()
            times[name].append([_seconds(timed[name], clock) for _ in range(calls[name])])
        progress("measuring latency", index + 1, rounds)
    return times


def _calls_for(call: Call, clock: Callable[[], float]) -> int:
    """How many calls fit in a turn, from the faster of two calls (the first one also warms up)."""
    once = min(_seconds(call, clock), _seconds(call, clock))
    return max(1, min(200, int(_CALLS_SECONDS / max(once, 1e-6))))


def _seconds(call: Call, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return max(clock() - start, 1e-9)


@contextlib.contextmanager
def _baselines(
    float_onnx: str | Path | None, work: Workload, *, threads: int, missing: dict[str, str]
) -> Iterator[dict[str, Call]]:
    """Yields ONNX Runtime on the float model and on its dynamically quantized copy."""
    if float_onnx is None:
        reason = "no float ONNX model was given"
        missing |= {ORT_FLOAT32: reason, ORT_INT8: reason}
        yield {}
        return
    file = _timed_graph(Path(float_onnx), work)
    with tempfile.TemporaryDirectory(prefix="edgeq-int8-") as folder:
        quantized = Path(folder) / "model.onnx"
        try:
            quantize_elsewhere(file, quantized)  # before a session holds the model
        except EdgeqError as error:
            # What ONNX Runtime's quantizer cannot do is a fact about the baseline, and reported as one.
            missing[ORT_INT8] = f"ONNX Runtime could not quantize the model: {error}"
        baselines = {ORT_FLOAT32: _onnxruntime(file, work, threads=threads)}
        if ORT_INT8 not in missing:
            try:
                baselines[ORT_INT8] = _onnxruntime(quantized, work, threads=threads)
            except EdgeqError as error:
                missing[ORT_INT8] = f"ONNX Runtime could not run its own quantized model: {error}"
        yield baselines


def _timed_graph(path: Path, work: Workload) -> Path:
    """Finds the graph that does the work of a call: of an encoder-decoder, the encoder or the decoder's later steps."""
    name = "decoder_with_past_model.onnx" if work.source else "model.onnx"
    name = "encoder_model.onnx" if work.reading else name
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file} does not exist; give the folder of the float model that 'edgeq export' wrote")
    return file


def _onnxruntime(file: Path, work: Workload, *, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise EdgeqError(f"ONNX Runtime cannot load {file}: {' '.join(str(error).split())[:300]}") from error
    feeds = work.onnx_inputs(session.get_inputs())
    return lambda: session.run(None, feeds)


def operators_of(runs: Sequence[Sequence[KernelTime]]) -> tuple[KernelShare, ...]:
    """Returns the kernels of one run, longest first, each with the median of its time in several runs of the model."""
    by_name = [{kernel.name: kernel for kernel in kernels} for kernels in runs]
    seconds = {name: float(np.median([run[name].seconds for run in by_name])) for name in by_name[0]}
    whole = sum(seconds.values())
    rows = [KernelShare(name, by_name[0][name].calls, spent, spent / whole) for name, spent in seconds.items()]
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _machine() -> dict[str, str]:
    """What a reader needs to judge the numbers."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} available of {os.cpu_count()}",
        "governor": _governor(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    for package in ("edgeq", "apache-tvm", "onnxruntime", "onnx"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


def _processor_seconds() -> tuple[float, float, float] | None:
    """Seconds since boot that all processors were at work, and could have been, and that this process worked."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    ticks, own = os.sysconf("SC_CLK_TCK"), os.times()
    idle = fields[3] + fields[4]  # idle, and waiting for a disk
    return (sum(fields) - idle) / ticks, sum(fields) / ticks, own.user + own.system


def _others_share(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None
) -> float | None:
    if before is None or after is None:
        return None
    busy, available, own = (late - early for early, late in zip(before, after, strict=True))
    return min(1.0, max(0.0, busy - own) / available) if available > 0 else 0.0


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _governor() -> str:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "not shown by this system"
