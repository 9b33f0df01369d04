"""A process that loads bundles with the edgeq that PYTHONPATH names and times what it is asked for, again and again.

    PYTHONPATH=CHECKOUT python -P either_format.py ENCODER DECODER THREADS

It knows only what edgeq had in both formats. Each line of its input names a work; each line of its output is JSON: the
seconds of its calls, the processor time that all threads took for one, and a digest of what they gave.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import edgeq

SEED = 0
_PAST = 160
_TEXT = "A cat sat on the mat."
_TOKENS = 50
_LEAST_SECONDS, _FEWEST = 0.15, 5


def encoder_call(bundle: Any, tokens: int) -> Callable[[], Any]:
    """Returns a call for one text of so many tokens."""
    ids = np.random.default_rng(SEED).integers(0, 1000, (1, tokens))
    return lambda: next(iter(bundle.run({"input_ids": ids}).values()))


def step_call(bundle: Any) -> Callable[[], Any]:
    """Returns the step after a prompt of 160 tokens, on the same caches each time."""
    ids = np.random.default_rng(SEED).integers(0, 1000, (1, _PAST + 1))
    state = bundle.new_state()

    def call(given: np.ndarray, past: int) -> Any:
        lengths = {"past_lengths": np.array([past], np.int64), "new_lengths": np.array([given.shape[1]], np.int64)}
        return bundle.run({"input_ids": given, **lengths}, state=state)["logits"]

    call(ids[:, :_PAST], 0)
    return lambda: call(ids[:, _PAST:], _PAST)


def token_call(bundle: Any) -> Callable[[], Any]:
    """Returns a call that generates 50 tokens."""
    return lambda: bundle.generate([_TEXT], max_new_tokens=_TOKENS, ignore_end=True).results()[0].ids


def _timed(call: Callable[[], Any]) -> dict[str, Any]:
    result = np.ascontiguousarray(call())
    seconds: list[float] = []
    # Of the whole turn: of a thread that spins, the system may count only every few milliseconds.
    began = time.process_time()
    while len(seconds) < _FEWEST or sum(seconds) < _LEAST_SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    processor = (time.process_time() - began) / len(seconds)
    digest = hashlib.sha256(result.tobytes()).hexdigest()
    return {"seconds": seconds, "processor_seconds": processor, "digest": digest}


def main() -> None:
    """Answers until its input ends."""
    encoder, decoder = (edgeq.load(path, threads=int(sys.argv[3])) for path in sys.argv[1:3])
    calls = {
        "MiniLM w8a8, 128 tokens": encoder_call(encoder, 128),
        "MiniLM w8a8, 16 tokens": encoder_call(encoder, 16),
        "GPT-2 small w2e2a8, a step": step_call(decoder),
        "50 tokens of a text": token_call(decoder),
    }
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        print(json.dumps(_timed(calls[line.strip()])), flush=True)


if __name__ == "__main__":
    main()
