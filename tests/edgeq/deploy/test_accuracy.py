"""A loss comes with an interval that knows how few examples there were."""

import numpy as np
import pytest
from scipy import stats

from edgeq.deploy.accuracy import metric_loss
from edgeq.evaluate.tasks import Evaluation


def similarity(predictions, value):
    return Evaluation("spearman", value, len(predictions), np.asarray(predictions), pearson=value)


def accuracy(predictions, truth):
    predictions = np.asarray(predictions, np.int64)
    return Evaluation("accuracy", float((predictions == truth).mean()), len(predictions), predictions)


def test_equal_models_lose_nothing():
    scores = np.linspace(0, 5, 50)
    loss = metric_loss(similarity(scores, 1.0), similarity(scores, 1.0), list(scores))
    assert (loss.value, loss.low, loss.high, loss.retained) == (0.0, 0.0, 0.0, 1.0)


def test_a_ruined_model_loses_beyond_doubt():
    generator = np.random.default_rng(0)
    scores = np.linspace(0, 5, 300)
    noise = generator.normal(size=300)
    value = float(stats.spearmanr(noise, scores).statistic)
    loss = metric_loss(similarity(scores, 1.0), similarity(noise, value), list(scores))
    assert loss.low > 0.8
    assert loss.low <= loss.value <= loss.high
    assert loss.retained == pytest.approx(value)


def test_few_examples_give_a_wide_interval():
    generator = np.random.default_rng(1)

    def width(count):
        scores = np.linspace(0, 5, count)
        first, second = (similarity(scores + generator.normal(size=count), 0.8) for _ in range(2))
        loss = metric_loss(first, second, list(scores))
        return loss.high - loss.low

    assert width(20) > 2 * width(500)


def test_accuracy_counts_labels_by_name_or_number():
    truth = np.array([0, 1] * 50)
    right, wrong = accuracy(truth, truth), accuracy(np.r_[1 - truth[:20], truth[20:]], truth)
    names = ["negative" if label == 0 else "positive" for label in truth]
    numbers = [str(label) for label in truth]
    for targets in (names, numbers):
        loss = metric_loss(right, wrong, targets, labels=["negative", "positive"])
        assert loss.value == pytest.approx(0.2)
        assert 0.1 < loss.low < 0.2 < loss.high < 0.3


def test_a_model_that_says_the_same_of_everything_is_compared_without_a_warning():
    scores = np.linspace(0, 5, 40)
    loss = metric_loss(similarity(scores, 1.0), similarity(np.ones(40), 0.0), list(scores))
    assert loss.value == 1.0
    assert loss.low == pytest.approx(1.0)
