"""``transformers.pipeline`` as a library: what people call first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from edgeq.parity.meaning.library import Library, NotCheckedError, Reading, Refusal, Replaceable
from edgeq.parity.meaning.samples import Sample
from edgeq.quiet import quiet_transformers

Named = tuple[tuple[str, ...] | None, np.ndarray]
"""Names, or None, and numbers of them."""


class Pipeline(Library):
    """A pipeline on the float model's own folder.

    Args:
        source: Folder of the float model.
        task: Name of the pipeline.

    Raises:
        NotCheckedError: If ``transformers`` does not load the folder.
    """

    def __init__(self, source: Path, task: str) -> None:
        self.name = f"transformers.pipeline({task!r})"
        try:
            with quiet_transformers():
                self._pipeline: Any = transformers.pipeline(
                    task, model=str(source), tokenizer=str(source), device="cpu", dtype=torch.float32
                )
        except Exception as error:  # a folder that it does not like ends in whatever then fails
            raise NotCheckedError(f"{self.name} does not load {source} ({_first_line(error)})") from error
        self._pipeline.model.eval()
        self._model = Replaceable(self._pipeline.model)

    def let_go(self) -> None:
        """See :meth:`Library.let_go`."""
        self._model.let_go()

    def use(self, model: nn.Module) -> None:
        """See :meth:`Library.use`."""
        self._model.use(model)

    def read(self, sample: Sample) -> Reading | Refusal:
        """See :meth:`Library.read`."""
        try:
            with quiet_transformers():
                names, numbers = self.answer(sample)
        except Exception as error:  # an index out of range, most often: a pipeline cuts no text by itself
            return Refusal(f"{type(error).__name__}: {_first_line(error)}")
        return Reading(*self._model.tokens(), names, numbers)

    def answer(self, sample: Sample) -> Named:
        """Returns what the pipeline says: names, and numbers of them."""
        raise NotImplementedError


class MeanOfFeatures(Pipeline):
    """``feature-extraction``, and the mean over the tokens that sentence-transformers takes of a plain model."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, "feature-extraction")
        self.name += " and the mean over its tokens"

    def answer(self, sample: Sample) -> Named:
        """See :meth:`Pipeline.answer`."""
        states = np.asarray(self._pipeline(sample.text, return_tensors=True))[0]
        return None, states.astype(np.float64).mean(axis=0)


class TextClassification(Pipeline):
    """``text-classification`` with the scores of all classes, in the order of the classes."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, "text-classification")

    def answer(self, sample: Sample) -> Named:
        """See :meth:`Pipeline.answer`."""
        text = sample.text
        given = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
        found = self._pipeline(given, top_k=None)
        # It sorts by score; equal scores and names come in an order that says nothing.
        found = sorted(found, key=lambda entry: (entry["label"], entry["score"]))
        return tuple(entry["label"] for entry in found), np.array([entry["score"] for entry in found], np.float64)


class TokenClassification(Pipeline):
    """``token-classification`` with every strategy of joining tokens, one after the other."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, "token-classification")

    def answer(self, sample: Sample) -> Named:
        """See :meth:`Pipeline.answer`."""
        return named_spans([self._pipeline(sample.text, aggregation_strategy=how) for how in STRATEGIES])


class QuestionAnswering(Pipeline):
    """``question-answering``; a sample is a question and a context."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, "question-answering")

    def answer(self, sample: Sample) -> Named:
        """See :meth:`Pipeline.answer`."""
        return named_answer(self._pipeline(question=sample.text[0], context=sample.text[1]))


class FillMask(Pipeline):
    """``fill-mask``, the five most likely tokens."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, "fill-mask")

    def answer(self, sample: Sample) -> Named:
        """See :meth:`Pipeline.answer`."""
        return named_tokens(self._pipeline(sample.text, top_k=FILLED))


STRATEGIES = ("none", "simple", "first", "average", "max")
FILLED = 5


def named_spans(results: Sequence[Sequence[Mapping[str, Any]]]) -> Named:
    """Returns what ``token-classification`` found, as names and scores.

    Args:
        results: For each strategy the spans, in the order of the text.
    """
    spans = [(how, span) for how, found in zip(STRATEGIES, results, strict=True) for span in found]
    names = tuple(
        f"{how} {span.get('entity', span.get('entity_group'))} {span['word']} ({span['start']} to {span['end']})"
        for how, span in spans
    )
    return names, np.array([span["score"] for _, span in spans], np.float64)


def named_answer(found: Mapping[str, Any]) -> Named:
    """Returns what ``question-answering`` found, as a name and a score."""
    return (f"{found['answer']!r} ({found['start']} to {found['end']})",), np.array([found["score"]], np.float64)


def named_tokens(found: Sequence[Mapping[str, Any]]) -> Named:
    """Returns what ``fill-mask`` found, as names and scores, in an order that does not depend on the scores."""
    rows = sorted(found, key=lambda row: int(row["token"]))
    names = tuple(f"{row['token']} {row['token_str']!r} {row['sequence']!r}" for row in rows)
    return names, np.array([row["score"] for row in rows], np.float64)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
