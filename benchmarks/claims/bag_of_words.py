"""What a task's data give away without the order of words: a linear model on bags of words, trained on the same rows.

A student is worth what it has above this, not above nothing. The queue measures it before the first run of a task; by
itself::

    python -m benchmarks.claims.bag_of_words --data DATA
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, sparse, stats

from benchmarks.claims.measure import Places
from benchmarks.claims.records import BAG_OF_WORDS, write_record
from edgeq.evaluate.data import EvaluationSet, read_evaluation_set

_LEAST_COUNT = 2
"""Words seen less often in the training data are no features."""
_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Weights of the squared norm that are tried, beside the mean loss."""
_HELD_OUT = 0.1
"""Part of the training data that the penalty is chosen on."""
_SEED = 1

Solve = Callable[[Any, np.ndarray, float], np.ndarray]
"""Features ``[rows, features]``, targets ``[rows]`` and a penalty to weights ``[features + 1]``, a constant last."""


def measure_bag_of_words(task: str, places: Places) -> dict[str, Any]:
    """Trains and measures the linear model of a task.

    Args:
        task: ``sst2``: logistic regression on the words of a sentence; ``stsb``: ridge regression on the words that
            both sentences of a pair have, on those that one has, and on the cosine of the two bags.
        places: Where the data are.

    Returns:
        Its record: ``accuracy`` and ``correct``, or ``spearman`` and ``predictions``, on what students are measured on.
    """
    train = read_evaluation_set(places.train_data(task))
    held = read_evaluation_set(places.measured_data(task), limit=places.limit)
    words = _words(train)
    fit, metric = (_ridge, _spearman) if task == "stsb" else (_logistic, _accuracy)
    features, targets = _features(train, words), _targets(train)
    penalty = _best_penalty(features, targets, fit, metric)
    scores = _scores(_features(held, words), fit(features, targets, penalty))
    result: dict[str, Any] = {"name": f"{BAG_OF_WORDS}-{task}", "task": task, "words": len(words), "penalty": penalty}
    if task == "stsb":
        rounded = [round(float(score), 4) for score in scores]
        wanted = _targets(held)
        value = _spearman(np.array(rounded), wanted)
        return result | {"spearman": value, "predictions": rounded, "targets": wanted.tolist()}
    right = (scores > 0) == (_targets(held) > 0)
    return result | {"accuracy": float(right.mean()), "correct": "".join("1" if one else "0" for one in right)}


def _words(data: EvaluationSet) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for example in data.examples:
        for text in (example.first, example.second):
            counts.update(set((text or "").lower().split()))
    return {word: number for number, word in enumerate(sorted(w for w, n in counts.items() if n >= _LEAST_COUNT))}


def _bags(texts: Sequence[str], words: dict[str, int]) -> Any:
    """Returns 1 where a text has a word: sparse float64 ``[texts, words]``."""
    found = [sorted({words[word] for word in text.lower().split() if word in words}) for text in texts]
    ends = np.cumsum([0, *map(len, found)])
    numbers = np.concatenate([np.array(one, np.int64) for one in found])
    return sparse.csr_matrix((np.ones(len(numbers)), numbers, ends), shape=(len(texts), len(words)))


def _features(data: EvaluationSet, words: dict[str, int]) -> Any:
    first = _bags([example.first for example in data.examples], words)
    if data.kind != "similarity":
        return first
    second = _bags([example.second or "" for example in data.examples], words)
    both = first.multiply(second)
    sizes = np.sqrt(np.asarray(first.sum(axis=1)) * np.asarray(second.sum(axis=1)))
    cosine = np.asarray(both.sum(axis=1)) / np.maximum(sizes, 1.0)
    return sparse.hstack([both, first + second - 2 * both, sparse.csr_matrix(cosine)]).tocsr()


def _targets(data: EvaluationSet) -> np.ndarray:
    """Scores, or -1 and 1 for the labels 0 and 1."""
    values = np.array([float(example.target) for example in data.examples])
    return values if data.kind == "similarity" else 2 * values - 1


def _best_penalty(
    features: Any, targets: np.ndarray, fit: Solve, metric: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    order = np.random.default_rng(_SEED).permutation(len(targets))
    cut = round(_HELD_OUT * len(targets))
    held, kept = order[:cut], order[cut:]

    def value(penalty: float) -> float:
        return metric(_scores(features[held], fit(features[kept], targets[kept], penalty)), targets[held])

    return max(_PENALTIES, key=value)


def _logistic(features: Any, targets: np.ndarray, penalty: float) -> np.ndarray:
    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = targets * _scores(features, weights)
        slopes = -targets / (1 + np.exp(margins)) / len(targets)
        value = float(np.logaddexp(0, -margins).mean() + penalty * weights[:-1] @ weights[:-1])
        gradient = np.append(features.T @ slopes + 2 * penalty * weights[:-1], slopes.sum())
        return value, gradient

    start = np.zeros(features.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(found.x)


def _ridge(features: Any, targets: np.ndarray, penalty: float) -> np.ndarray:
    mean = targets.mean()
    damp = np.sqrt(penalty * len(targets))
    weights = sparse.linalg.lsqr(features, targets - mean, damp=damp, iter_lim=500)[0]
    return np.append(weights, mean)


def _scores(features: Any, weights: np.ndarray) -> np.ndarray:
    return np.asarray(features @ weights[:-1] + weights[-1])


def _accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    return float(((scores > 0) == (targets > 0)).mean())


def _spearman(scores: np.ndarray, targets: np.ndarray) -> float:
    return float(stats.spearmanr(scores, targets).statistic)


def main() -> int:
    """Measures both tasks."""
    from benchmarks.claims.queue import RECORDS, RESULTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sst2 and stsb")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and records")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for task in ("sst2", "stsb"):
            result = measure_bag_of_words(task, Places(options.data, Path(folder)))
            write_record(options.results / RECORDS, result)
            print(result["name"], result.get("accuracy", result.get("spearman")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
