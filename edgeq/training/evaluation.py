"""Measures a model on the held-out examples of a task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from edgeq.distill import FeatureReader, Wanted
from edgeq.distill.labels import NO_LABEL
from edgeq.distill.sentence import Pooling
from edgeq.errors import UsageError
from edgeq.formats.tasks import TASKS
from edgeq.models import ModelAdapter
from edgeq.training.data import TaskData
from edgeq.training.examples import ExampleSet
from edgeq.training.figures import Figures
from edgeq.training.kinds import KINDS

_BATCH_TOKENS = 8192


def evaluate_model(
    model: nn.Module,
    adapter: ModelAdapter,
    data: TaskData,
    *,
    teacher: nn.Module | None = None,
    pooling: Pooling = "mean",
    processes: Any = None,
) -> Figures:
    """Runs a model over the held-out examples of a task.

    Args:
        model: A float, training or compressed model; it is in evaluation mode meanwhile.
        adapter: Its adapter.
        data: Data with an evaluation set.
        teacher: Model whose embeddings ungraded texts are compared with, for the embedding task.
        pooling: How token states become a sentence embedding.
        processes: An ``accelerate.Accelerator`` over whose processes the examples are spread.

    Returns:
        What the task's kind measures (:mod:`edgeq.training.kinds`); or accuracy and loss of classification; Spearman's
        and Pearson's correlation of regression and of embeddings of graded pairs; the mean cosine to the teacher's of
        other embeddings; perplexity and loss per token of models that generate text.

    Raises:
        UsageError: If the data hold no evaluation set, or ungraded texts and no teacher is given.
    """
    examples = data.evaluation
    if examples is None:
        raise UsageError("there are no held-out examples to evaluate on; give evaluation data")
    kind = KINDS.get(data.task)
    own = _outputs(model, adapter, examples, pooling, processes, rows=_rows if kind is None else kind.rows)
    if kind is not None:
        return kind.figures(own, examples)
    if data.task == "classification":
        return _classification(own, examples)
    if data.task == "regression":
        return _correlation(own[:, 0], _numbers(examples))
    if data.task == "embedding":
        if examples.similarities is not None:
            pairs = examples.similarities
            return _correlation(_cosines(own[pairs.pairs[:, 0]], own[pairs.pairs[:, 1]]), pairs.scores)
        if teacher is None:
            raise UsageError("embeddings are evaluated on graded pairs, or against a teacher; give one of them")
        wanted = _outputs(teacher, adapter, examples, pooling, processes, rows=_rows)
        return Figures("cosine", {"cosine": float(_cosines(own, wanted).mean())})
    loss = float(own[:, 0].sum() / own[:, 1].sum())
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return Figures("perplexity", {"perplexity": perplexity, "loss": loss})


def _numbers(examples: ExampleSet) -> np.ndarray:
    return np.asarray(examples.labels)


def _classification(rows: np.ndarray, examples: ExampleSet) -> Figures:
    labels = _numbers(examples)
    peak = rows.max(axis=1, keepdims=True)
    log_sums = peak[:, 0] + np.log(np.exp(rows - peak).sum(axis=1))
    loss = float((log_sums - rows[np.arange(len(rows)), labels]).mean())
    accuracy = float((rows.argmax(axis=1) == labels).mean())
    return Figures("accuracy", {"accuracy": accuracy, "loss": loss})


def _correlation(found: np.ndarray, wanted: np.ndarray) -> Figures:
    """A model whose answers are all alike has no correlation; 0 must not stop a training."""
    if len(found) < 2 or np.ptp(found) == 0 or np.ptp(wanted) == 0 or not np.isfinite(found).all():
        return Figures("spearman", {"spearman": 0.0, "pearson": 0.0})
    spearman = float(stats.spearmanr(found, wanted).statistic)
    return Figures("spearman", {"spearman": spearman, "pearson": float(stats.pearsonr(found, wanted).statistic)})


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: np.ndarray = (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def _outputs(
    model: nn.Module,
    adapter: ModelAdapter,
    examples: ExampleSet,
    pooling: Pooling,
    processes: Any,
    *,
    rows: Callable[[torch.Tensor, dict[str, torch.Tensor], ModelAdapter], torch.Tensor],
) -> np.ndarray:
    """Returns one row an example, float64, as ``rows`` makes it of the model's output."""
    reader = FeatureReader(model, adapter, wanted=Wanted(), pooling=pooling)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = _batches(examples)
    rank, count = (processes.process_index, processes.num_processes) if processes is not None else (0, 1)
    results = []
    try:
        with torch.no_grad():
            for chosen in batches[rank::count]:
                batch = {name: value.to(device) for name, value in examples.batch(chosen).items()}
                results.append((chosen, rows(reader(batch).output, batch, adapter).double().cpu().numpy()))
    finally:
        reader.close()
        model.train(training)
    if count > 1:
        from accelerate.utils import gather_object

        results = gather_object(results)
    table = np.empty((len(examples), results[0][1].shape[1]))
    for chosen, values in results:
        table[chosen] = values
    return table


def _batches(examples: ExampleSet) -> list[np.ndarray]:
    """Cuts the examples, sorted by length, into batches of a bounded number of tokens."""
    lengths = examples.lengths
    batches: list[np.ndarray] = []
    start = 0
    order = np.argsort(lengths, kind="stable")
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * lengths[order[stop]] <= _BATCH_TOKENS:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches


def _rows(output: torch.Tensor, batch: dict[str, torch.Tensor], adapter: ModelAdapter) -> torch.Tensor:
    """Logits of texts, embeddings, or of models that generate text the loss and the number of its tokens."""
    if not TASKS[adapter.task].generates:
        return output.float()
    labels = batch["labels"]
    losses = functional.cross_entropy(
        output.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none"
    )
    return torch.stack([losses.double().sum(dim=1), (labels != NO_LABEL).sum(dim=1).double()], dim=1)
