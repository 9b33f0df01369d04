"""The side of an engine: one process that loads a model, then embeds the texts that it is given when its turn comes.

Runs in the peers' environment, so it needs the standard library, numpy and ``turns`` of ``benchmarks/speed/engines``.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from turns import made, reason, say

Embed = Callable[[list[str]], np.ndarray]
Load = Callable[[dict[str, Any]], Mapping[str, Embed]]
BUDGETS = (256, 1024, 4096)
"""Tokens of a batch, padding included, that engines without a grouping of their own are tried with."""


def serve(load: Load, *, make: Callable[[Path, str], None] | None = None, packages: tuple[str, ...] = ()) -> None:
    """Makes files if it is asked to, or loads a model, chooses the fastest of its settings, and embeds texts.

    Args:
        load: Takes the request (``folder``, ``variant``, ``threads``, ``longest``) and returns, by the name of a
            setting, what embeds a list of texts: float32 ``[texts, width]``, in their order.
        make: Takes the model's folder and the variant, and makes the files that ``load`` reads.
        packages: Whose versions are reported.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not come between the answers
    request = json.loads(sys.stdin.readline())
    if request.get("make"):
        say(answers, made(make, request))
        return
    try:
        settings = load(request)
        sample = _texts(request["sample"])
        name, embed = min(settings.items(), key=lambda setting: _seconds(setting[1], sample))
    except Exception as error:  # what a peer cannot do is a fact of the run, and reported as one
        say(answers, reason(error))
        return
    np.save(Path(request["output"]), embed(sample))
    versions = {package: importlib.metadata.version(package) for package in packages}
    say(answers, {"setting": name, "versions": versions})
    for line in sys.stdin:
        texts = _texts(json.loads(line)["texts"])
        start = time.perf_counter()
        embed(texts)
        say(answers, {"seconds": time.perf_counter() - start})


def grouped(tokenizer: Any, run: Callable[[list[list[int]]], np.ndarray], *, longest: int, budget: int) -> Embed:
    """Returns what tokenizes texts, runs those of about the same length together, and averages over their tokens.

    Args:
        tokenizer: Of the package ``tokenizers``; pads nothing.
        run: Takes token ids of some texts and returns the states of their tokens, float32 ``[texts, longest, width]``.
        longest: Tokens at which a text is cut.
        budget: Most tokens of a batch, padding included.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)

    def embed(texts: list[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        found: list[np.ndarray | None] = [None] * len(ids)
        for part in _parts(order, [len(row) for row in ids], budget):
            states = run([ids[index] for index in part])
            for index, rows in zip(part, states, strict=True):
                found[index] = rows[: len(ids[index])].mean(axis=0)
        vectors = np.stack([vector for vector in found if vector is not None])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ids and mask, both int64 ``[texts, longest]``."""
    shape = len(rows), max(map(len, rows))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    return ids, mask


def _parts(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for index in order:  # lengths rise, so that the text at hand is the longest of its batch
        if parts[-1] and (len(parts[-1]) + 1) * lengths[index] > budget:
            parts.append([])
        parts[-1].append(index)
    return parts


def _seconds(embed: Embed, texts: list[str]) -> float:
    embed(texts)
    start = time.perf_counter()
    embed(texts)
    return time.perf_counter() - start


def _texts(file: str) -> list[str]:
    return list(json.loads(Path(file).read_text(encoding="utf-8")))
