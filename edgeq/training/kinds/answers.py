"""Extractive question answering: cross-entropy over the tokens of a window, for where the answer starts and ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeq.errors import UsageError
from edgeq.evaluate.answers import Question, read_questions
from edgeq.evaluate.spans import Window, windows_of
from edgeq.models import ModelAdapter
from edgeq.training.examples import ExampleSet
from edgeq.training.figures import Figures
from edgeq.training.kinds.base import Kind, Reading


def _examples(path: Path, reading: Reading) -> ExampleSet:
    """Windows of contexts with the places where the answer starts and ends: the first token where there is none."""
    rows, places = [], []
    for question in read_questions(path).examples:
        for window in windows_of(
            reading.tokenizer, question.question, question.context, max_length=reading.max_length
        ):
            rows.append(window.tokens)
            places.append(_place(path, question, window))
    inputs = [np.array(row["input_ids"], np.int32) for row in rows]
    return ExampleSet(inputs, reading.pad, reading.types(rows), np.array(places, np.int64))


def _place(path: Path, question: Question, window: Window) -> tuple[int, int]:
    if not question.answers:
        return 0, 0
    text, start = question.answers[0], question.starts[0]
    if start < 0:
        start = question.context.find(text)
        if start < 0 or question.context.find(text, start + 1) >= 0:
            raise UsageError(
                f"{path}, {question.place}: say where the answer {text[:30]!r} begins (answer_start); the context has "
                f"it {'not at all' if start < 0 else 'more than once'}"
            )
    end = start + len(text)
    inside = [token for token in np.flatnonzero(window.allowed) if window.places[token][1] > window.places[token][0]]
    first = [token for token in inside if window.places[token][0] <= start < window.places[token][1]]
    last = [token for token in inside if window.places[token][0] < end <= window.places[token][1]]
    return (int(first[0]), int(last[-1])) if first and last else (0, 0)


def _rows(output: torch.Tensor, batch: dict[str, torch.Tensor], _: ModelAdapter) -> torch.Tensor:
    return (output.argmax(dim=-1) == batch["labels"]).all(dim=-1, keepdim=True).double()


def _figures(rows: np.ndarray, _: ExampleSet) -> Figures:
    return Figures("exact windows", {"exact windows": float(rows.mean())})


ANSWERS = Kind(_examples, _rows, _figures)
