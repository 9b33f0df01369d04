"""One text, and one step of a decoder, of a model in a bundle or in ONNX Runtime; models take turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from benchmarks.machine import turn_seconds

SEED = 0
SEQUENCE, CONTEXT = 128, 256
TEXT, STEP = "text of 128 tokens", "step after 128 tokens"
_TURN_SECONDS = 0.5

Call = Callable[[], object]
Times = dict[str, dict[str, float]]
"""Milliseconds by setup and work."""


def calls_of(folder: Path, *, decoder: bool, compiled: bool, threads: int) -> dict[str, Call]:
    """Returns the calls of a model by work: a text, and for a decoder a step.

    Args:
        folder: A bundle made with a context of 256, or a folder with ``model.onnx``.
        decoder: Whether it is a GPT-2.
        compiled: Whether the folder is a bundle.
        threads: Threads it is given.
    """
    ids = text_ids()
    if not compiled:
        return _session_calls(folder / "model.onnx", ids, decoder=decoder, threads=threads)
    bundle = edgeq.load(folder, threads=threads)
    if not decoder:
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return {TEXT: lambda: bundle.run(feed)}
    state = bundle.new_state(1)
    return {
        TEXT: lambda: bundle.run(_lengths(ids, past=0), state=state),
        STEP: lambda: bundle.run(_lengths(ids[:, :1], past=SEQUENCE), state=state),
    }


def text_ids() -> np.ndarray:
    """Returns the text that is read: int64 ``[1, 128]``."""
    return np.random.default_rng(SEED).integers(0, 250, (1, SEQUENCE), dtype=np.int64)


def take_turns(calls: dict[str, dict[str, Call]], *, rounds: int) -> Times:
    """Returns milliseconds of the fastest call by setup and work."""
    timers = {
        (name, work): turn_seconds(call, _TURN_SECONDS) for name, works in calls.items() for work, call in works.items()
    }
    fastest = dict.fromkeys(timers, float("inf"))
    for _ in range(rounds):
        for key, timer in timers.items():
            fastest[key] = min(fastest[key], timer())
    return {name: {work: 1e3 * fastest[name, work] for work in works} for name, works in calls.items()}


def _session_calls(file: Path, ids: np.ndarray, *, decoder: bool, threads: int) -> dict[str, Call]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    text = {entry.name: onnx_input(entry, ids, past=0) for entry in session.get_inputs()}
    works: dict[str, Call] = {TEXT: lambda: session.run(["logits"], text)}
    if decoder:
        step = {entry.name: onnx_input(entry, ids[:, :1], past=SEQUENCE) for entry in session.get_inputs()}
        works[STEP] = lambda: session.run(None, step)
    return works


def _lengths(ids: np.ndarray, *, past: int) -> dict[str, np.ndarray]:
    return {
        "input_ids": ids,
        "past_lengths": np.array([past], np.int64),
        "new_lengths": np.array([ids.shape[1]], np.int64),
    }


def onnx_input(entry: Any, ids: np.ndarray, *, past: int) -> np.ndarray:
    """Returns the value of an input of an exported graph.

    Args:
        entry: The input, ``onnxruntime.NodeArg``.
        ids: The new tokens, int64 ``[1, tokens]``.
        past: Tokens in the cache.
    """
    if entry.name.startswith("past_key_values."):
        _, heads, _, size = entry.shape
        return np.zeros((1, heads, past, size), np.float16)
    if entry.name == "attention_mask":
        return np.ones((1, past + ids.shape[1]), np.int64)
    if entry.name == "position_ids":
        return np.arange(past, past + ids.shape[1])[None]
    return np.zeros_like(ids) if entry.name == "token_type_ids" else ids
