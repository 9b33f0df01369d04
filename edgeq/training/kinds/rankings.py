"""Rerankers: each document with its query, graded by its relevance, measured by nDCG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeq.evaluate.metrics import DEPTH, METRICS, ranking_row
from edgeq.evaluate.ranking import read_rankings
from edgeq.models import ModelAdapter
from edgeq.training.examples import ExampleSet
from edgeq.training.figures import Figures
from edgeq.training.kinds.base import Kind, Reading


def _examples(path: Path, reading: Reading) -> ExampleSet:
    """Pairs of a query and a document, with the relevance as a share of the largest one in the data."""
    queries = read_rankings(path).examples
    pairs = [(number, one.query, document) for number, one in enumerate(queries) for document in one.documents]
    relevance = np.array([value for one in queries for value in one.relevance], np.float32)
    encoded = reading.tokenizer(
        [query for _, query, _ in pairs],
        [document for _, _, document in pairs],
        truncation=True,
        max_length=reading.max_length,
        return_token_type_ids=True,
    )
    rows = [{key: encoded[key][row] for key in ("input_ids", "token_type_ids")} for row in range(len(pairs))]
    inputs = [np.array(row["input_ids"], np.int32) for row in rows]
    groups = np.array([number for number, _, _ in pairs], np.int64)
    return ExampleSet(inputs, reading.pad, reading.types(rows), relevance / relevance.max(), groups=groups)


def _rows(output: torch.Tensor, _: dict[str, torch.Tensor], __: ModelAdapter) -> torch.Tensor:
    return output.double()


def _figures(rows: np.ndarray, examples: ExampleSet) -> Figures:
    relevance, groups = np.asarray(examples.labels, np.float64), np.asarray(examples.groups)
    ranked = [ranking_row(rows[groups == group, 0], relevance[groups == group]) for group in np.unique(groups)]
    table = np.array(ranked, np.float64)
    name = f"ndcg@{DEPTH}"
    return Figures(name, {name: METRICS[name].of(table), f"mrr@{DEPTH}": float(table[:, 1].mean())})


RANKINGS = Kind(_examples, _rows, _figures)
