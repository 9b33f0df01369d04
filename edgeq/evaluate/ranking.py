"""Queries with documents of which some are relevant: how far in front those stand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.batches import Batches
from edgeq.evaluate.data import read_examples_file, read_rows
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning
from edgeq.evaluate.metrics import DEPTH, ranking_row
from edgeq.evaluate.similarity import embed, similarities
from edgeq.formats.json_file import parse_json

QUERIES = ("query",)
DOCUMENTS = ("document", "passage")
RELEVANCE = ("relevance", "label", "score")
_LISTS = {"documents", "relevance", "positive", "negative"}
_IGNORED = frozenset(("id", "idx", "index", "qid", "pid", "query_id", "document_id", "passage_id"))


@dataclasses.dataclass(frozen=True)
class Query:
    """A query with its documents.

    Attributes:
        query: Its text.
        documents: Texts to be ranked.
        relevance: How relevant each is: 0 or more.
    """

    query: str
    documents: tuple[str, ...]
    relevance: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Rankings(EvaluationData):
    """Queries with documents.

    Attributes:
        path: Where they came from.
        examples: The queries.
    """

    path: Path
    examples: list[Query]

    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """Returns the mean nDCG of the first ten documents, and the mean reciprocal rank beside it.

        A reranker, which has one logit, reads each document with its query; an embedding model compares the two.
        Queries without a relevant document, or with nothing else, are left out by both numbers' definition: they are
        the same for every ranking.
        """
        scores = self._graded(run) if len(meaning.labels) == 1 else self._compared(run, meaning)
        told = [
            (ranking_row(found, np.array(one.relevance)), int(found.argmax()))
            for one, found in zip(self.examples, scores, strict=True)
        ]
        rows = np.array([row for row, _ in told], np.float64)
        decisions = np.array([best for _, best in told], np.int64)
        return Evaluation(f"ndcg@{DEPTH}", rows, decisions, {f"mrr@{DEPTH}": float(rows[:, 1].mean())})

    def _graded(self, run: Batches) -> list[np.ndarray]:
        pairs = [(one.query, document) for one in self.examples for document in one.documents]
        found = run.of_texts(pairs, lambda _, outputs: float(outputs["logits"][0]))
        return self._by_query(np.array(found))

    def _compared(self, run: Batches, meaning: Meaning) -> list[np.ndarray]:
        texts = sorted({text for one in self.examples for text in (one.query, *one.documents)})
        vectors = embed(run, texts, f"{self.path} ranks documents")
        place = {text: index for index, text in enumerate(texts)}
        first = vectors[[place[one.query] for one in self.examples for _ in one.documents]]
        second = vectors[[place[document] for one in self.examples for document in one.documents]]
        how = meaning.sentence.similarity if meaning.sentence is not None else "cosine"
        return self._by_query(similarities(first, second, how))

    def _by_query(self, scores: np.ndarray) -> list[np.ndarray]:
        return np.split(scores, np.cumsum([len(one.documents) for one in self.examples])[:-1])


def is_ranking(names: Sequence[str]) -> bool:
    """Tells whether columns are those of queries and documents."""
    return any(name in names for name in QUERIES)


def read_rankings(path: Path | str, *, limit: int | None = None) -> Rankings:
    """Reads queries with documents.

    Args:
        path: A ``.tsv``, ``.csv`` or ``.jsonl`` file with ``query``, ``document`` (or ``passage``) and ``relevance``
            (or ``label``, ``score``) in each row; or a ``.jsonl`` file with a whole query in each line: ``query`` and
            the lists ``documents`` and ``relevance``, or the lists ``positive`` and ``negative``.
        limit: Read no more than this many queries.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or has other columns.
        FormatError: If a row cannot be read.
    """
    path = Path(path)
    lists = path.suffix == ".jsonl" and _has_lists(path)
    queries = list(_of_lists(path)) if lists else _of_rows(path)
    used = [one for one in queries if 0 < sum(value > 0 for value in one.relevance) < len(one.documents)]
    if not used:
        raise UsageError(f"{path} has no query with documents of which some are relevant and others are not")
    return Rankings(path, used[:limit])


def _has_lists(path: Path) -> bool:
    first = next(line for line in read_examples_file(path).split("\n") if line.strip())
    row = parse_json(first, where=f"{path}, line 1,")
    return isinstance(row, dict) and any(isinstance(row.get(name), list) for name in _LISTS)


def _of_rows(path: Path) -> list[Query]:
    rows = read_rows(path)
    names = list(rows[0][1])
    query, document, relevance = (_column(path, names, known) for known in (QUERIES, DOCUMENTS, RELEVANCE))
    if strange := [name for name in names if name not in {query, document, relevance, *_IGNORED}]:
        raise UsageError(f"{path} has a column {strange[0]!r}, and nothing says what it is for; take it out")
    grouped: dict[str, list[tuple[str, float]]] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        missing = [name for name in (query, document, relevance) if name not in row]
        if missing:
            raise FormatError(f"{where}: {missing[0]!r} is missing")
        grouped.setdefault(row[query], []).append((row[document], _relevance(row[relevance], where)))
    return [_query(text, found) for text, found in grouped.items()]


def _column(path: Path, names: Sequence[str], known: Sequence[str]) -> str:
    found = [name for name in known if name in names]
    if len(found) != 1:
        raise UsageError(
            f"{path} ranks documents, for which it should have columns query, document and relevance; found "
            f"{', '.join(names)}"
        )
    return found[0]


def _of_lists(path: Path) -> Iterator[Query]:
    for number, line in enumerate(read_examples_file(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse_json(line, where=f"{where},")
        if not isinstance(row, dict) or not isinstance(row.get("query"), str):
            raise FormatError(f"{where}: expected an object with a text 'query', found {line[:60]!r}")
        if strange := sorted(row.keys() - _LISTS - _IGNORED - {"query"}):
            raise FormatError(f"{where}: nothing says what {strange[0]!r} is for; take it out")
        yield _query(row["query"], _documents(row, where))


def _documents(row: dict[str, Any], where: str) -> list[tuple[str, float]]:
    lists = {name: row[name] for name in sorted(_LISTS) if name in row}
    if set(lists) == {"documents", "relevance"}:
        texts, values = lists["documents"], lists["relevance"]
        if not isinstance(values, list) or not isinstance(texts, list) or len(values) != len(texts):
            raise FormatError(f"{where}: 'relevance' should be a list as long as 'documents'")
        found = [(text, _relevance(value, where)) for text, value in zip(texts, values, strict=True)]
    elif set(lists) == {"positive", "negative"} and all(isinstance(one, list) for one in lists.values()):
        found = [(text, 1.0) for text in lists["positive"]] + [(text, 0.0) for text in lists["negative"]]
    else:
        raise FormatError(f"{where}: expected the lists documents and relevance, or positive and negative")
    if not all(isinstance(text, str) for text, _ in found):
        raise FormatError(f"{where}: a document should be a text")
    return found


def _query(text: str, found: Sequence[tuple[str, float]]) -> Query:
    return Query(text, tuple(document for document, _ in found), tuple(value for _, value in found))


def _relevance(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and number >= 0):
        raise FormatError(f"{where}: a relevance is a number of 0 or more, found {value!r:.40}")
    return number
