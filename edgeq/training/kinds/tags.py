"""Token classification: cross-entropy at the first token of each word, measured by F1 of entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeq.distill.labels import NO_LABEL
from edgeq.evaluate.entities import entities
from edgeq.evaluate.metrics import METRICS
from edgeq.evaluate.tags import named_tags, read_tagged_texts, tokens_of_words
from edgeq.models import ModelAdapter
from edgeq.training.examples import ExampleSet
from edgeq.training.figures import Figures
from edgeq.training.kinds.base import Kind, Reading


def _examples(path: Path, reading: Reading) -> ExampleSet:
    """Sentences with a label at the first token of each word; longer ones are cut."""
    labels = reading.adapter.labels
    place = {name: number for number, name in enumerate(labels)}
    rows, wanted = [], []
    for text in read_tagged_texts(path).examples:
        tokens = tokens_of_words(reading.tokenizer, text.words)
        own = np.full(len(tokens.tokens["input_ids"]), NO_LABEL, np.int32)
        for first, tag in zip(tokens.firsts, named_tags(path, text, labels), strict=True):
            if first is not None:
                own[first] = place[tag]
        rows.append({key: values[: reading.max_length] for key, values in tokens.tokens.items()})
        wanted.append(own[: reading.max_length])
    inputs = [np.array(row["input_ids"], np.int32) for row in rows]
    return ExampleSet(inputs, reading.pad, reading.types(rows), wanted)


def _rows(output: torch.Tensor, batch: dict[str, torch.Tensor], adapter: ModelAdapter) -> torch.Tensor:
    """Right, predicted and actual entities of each sentence; right and all words."""
    names, rows = adapter.labels, []
    for found, wanted in zip(output.argmax(dim=-1).tolist(), batch["labels"].tolist(), strict=True):
        pairs = [(names[one], names[other]) for one, other in zip(found, wanted, strict=True) if other != NO_LABEL]
        predicted, actual = entities([one for one, _ in pairs]), entities([other for _, other in pairs])
        right = sum(one == other for one, other in pairs)
        rows.append([len(predicted & actual), len(predicted), len(actual), right, len(pairs)])
    return torch.tensor(rows, dtype=torch.float64)


def _figures(rows: np.ndarray, _: ExampleSet) -> Figures:
    words = rows[:, 3:].sum(axis=0)
    accuracy = float(words[0] / words[1]) if words[1] else 0.0
    return Figures("entity-f1", {"entity-f1": METRICS["entity-f1"].of(rows[:, :3]), "word accuracy": accuracy})


TAGS = Kind(_examples, _rows, _figures)
