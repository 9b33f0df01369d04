"""Calls of a bundle: their time on one thread and on two, and what Python adds to a call and to a token."""

from __future__ import annotations

import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.runtime.manifest import read_manifest

SEED = 0
_PAST = 160
"""Tokens before a step."""
_CALLS = 60
_TEXT = "A cat sat on the mat."
_TOKENS, _TEXTS = 50, 10


def encoder_ms(bundle: Path, *, tokens: int, threads: int) -> float:
    """Median milliseconds of ``edgeq-run`` for one text of so many tokens."""
    ids = np.random.default_rng(SEED).integers(0, 1000, (1, tokens))
    return _profiled(bundle, [{"input_ids": ids}], threads)


def step_ms(bundle: Path, *, threads: int) -> float:
    """Median milliseconds of ``edgeq-run`` for the step of a decoder after a prompt of 160 tokens."""
    ids = np.random.default_rng(SEED).integers(0, 1000, (1, _PAST + 1))

    def call(given: np.ndarray, past: int) -> dict[str, np.ndarray]:
        new = np.array([given.shape[1]], np.int64)
        return {"input_ids": given, "past_lengths": np.array([past], np.int64), "new_lengths": new}

    return _profiled(bundle, [call(ids[:, :_PAST], 0), call(ids[:, _PAST:], _PAST)], threads)


def _profiled(bundle: Path, inputs: list[dict[str, np.ndarray]], threads: int) -> float:
    manifest = read_manifest(bundle)
    calls = [call_of_main(given, manifest) for given in inputs]
    with tempfile.NamedTemporaryFile() as file:
        file.write(encode_calls(calls, tagged=False))
        file.flush()
        command = [str(bundle / "edgeq-run"), str(bundle), "--profile", file.name, "--repeat", str(_CALLS)]
        printed = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return 1e3 * float(np.median(json.loads(printed.stdout)["seconds"]))


def python_costs(encoder: Path, decoder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds that Python adds to an embedding and to a generated token: what is spent outside of the library."""
    embeds, writes = edgeq.load(encoder, threads=1), edgeq.load(decoder, threads=1)

    def embed() -> int:
        embeds.encode([_TEXT])
        return 1

    def write() -> int:
        return sum(1 for _ in writes.generate(_TEXT, max_new_tokens=_TOKENS, ignore_end=True))

    return {
        "embedding": _outside(embeds.model.library, embed, _CALLS),
        "token": _outside(writes.model.library, write, _TEXTS),
    }


def _outside(library: ctypes.CDLL, call: Callable[[], int], times: int) -> dict[str, float]:
    """Calls a function that returns how many things it made. Reading the clock around the library counts as Python."""
    inside = [0.0]

    def timed(function: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            inside[0] += time.perf_counter() - start
            return result

        return run

    call()  # after which every function that is used is known
    functions = {name: function for name, function in vars(library).items() if name.startswith("edgeq_")}
    rows = []
    try:
        for name, function in functions.items():
            setattr(library, name, timed(function))
        for _ in range(times):
            inside[0] = 0.0
            start = time.perf_counter()
            count = call()
            rows.append((time.perf_counter() - start, inside[0], count))
    finally:
        for name, function in functions.items():
            setattr(library, name, function)
    whole, own, counts = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "whole_ms": 1e3 * float(np.median(whole / counts)),
        "python_ms": 1e3 * float(np.median((whole - own) / counts)),
        "least_python_ms": 1e3 * float(np.min((whole - own) / counts)),
    }
