"""What models of each task are measured on: a new task is a file beside this one, and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeq.evaluate.answers import read_questions
from edgeq.evaluate.data import read_evaluation_set, read_rows
from edgeq.evaluate.evaluation import EvaluationData
from edgeq.evaluate.masks import read_masked_texts
from edgeq.evaluate.ranking import is_ranking, read_rankings
from edgeq.evaluate.tags import read_tagged_texts

Reader = Callable[[Path], EvaluationData]


def _read_texts_or_rankings(path: Path) -> EvaluationData:
    # Only the columns tell a table of labels or scores from one of queries and documents.
    return read_rankings(path) if is_ranking(list(read_rows(path)[0][1])) else read_evaluation_set(path)


READERS: dict[str, Reader] = {
    "embed": _read_texts_or_rankings,
    "classify": _read_texts_or_rankings,
    "tag": read_tagged_texts,
    "answer": read_questions,
    "fill": read_masked_texts,
}
"""By the name of the task; models that generate text are measured by :mod:`edgeq.evaluate.perplexity`."""


def read_evaluation_data(path: Path | str, task: str) -> EvaluationData:
    """Reads the data that a model of a task is measured on.

    Args:
        path: The file.
        task: A key of :data:`READERS`.

    Raises:
        UsageError: If the file is missing, empty, or for another task.
        FormatError: If a row cannot be read.
    """
    return READERS[task](Path(path))
