"""A loss comes with an interval that knows how few examples there were."""

import numpy as np
import pytest
from scipy import stats

from edgeq.compress import compress_model
from edgeq.deploy import accuracy
from edgeq.deploy.accuracy import measure_accuracy, metric_loss
from edgeq.evaluate.data import read_evaluation_set
from edgeq.evaluate.evaluation import Evaluation


def similarity(predictions, scores):
    return Evaluation("spearman", np.stack([predictions, scores], axis=1))


def test_equal_models_lose_nothing():
    scores = np.linspace(0, 5, 50)
    loss = metric_loss(similarity(scores, scores), similarity(scores, scores))
    assert (loss.value, loss.low, loss.high) == (0.0, 0.0, 0.0)
    assert loss.retained == 1.0


def test_a_ruined_model_loses_beyond_doubt():
    generator = np.random.default_rng(0)
    scores = np.linspace(0, 5, 300)
    noise = generator.normal(size=300)
    value = float(stats.spearmanr(noise, scores).statistic)
    loss = metric_loss(similarity(scores, scores), similarity(noise, scores))
    assert loss.low > 0.8
    assert loss.low <= loss.value <= loss.high
    assert loss.retained == pytest.approx(value)


def test_few_examples_give_a_wide_interval():
    generator = np.random.default_rng(1)

    def width(count):
        scores = np.linspace(0, 5, count)
        first, second = (similarity(scores + generator.normal(size=count), scores) for _ in range(2))
        loss = metric_loss(first, second)
        return loss.high - loss.low

    assert width(20) > 2 * width(500)


@pytest.mark.parametrize("metric", ["accuracy", "top-1"])
def test_right_answers_are_counted(metric):
    right = np.ones((100, 1))
    wrong = right.copy()
    wrong[:20] = 0
    loss = metric_loss(Evaluation(metric, right), Evaluation(metric, wrong))
    assert loss.value == pytest.approx(0.2)
    assert 0.1 < loss.low < 0.2 < loss.high < 0.3


def test_entities_of_all_sentences_are_counted_together():
    """Sentences of many entities weigh more than those of one."""
    whole = np.array([[9.0, 9.0, 9.0]] * 30 + [[1.0, 1.0, 1.0]] * 30)
    found = whole.copy()
    found[:30, 0] = 0  # what is found is another entity each time
    loss = metric_loss(Evaluation("entity-f1", whole), Evaluation("entity-f1", found))
    assert loss.value == pytest.approx(0.9)
    assert 0.8 < loss.low < 0.9 < loss.high < 1.0


def test_of_a_float_model_of_no_use_nothing_is_kept():
    """JSON has no word for the quotient of two zeros."""
    wrong = Evaluation("top-1", np.zeros((20, 1)))
    loss = metric_loss(wrong, wrong)
    assert (loss.value, loss.low, loss.high, loss.retained) == (0.0, 0.0, 0.0, None)


def test_a_model_that_says_the_same_of_everything_is_compared_without_a_warning():
    scores = np.linspace(0, 5, 40)
    loss = metric_loss(similarity(scores, scores), similarity(np.ones(40), scores))
    assert loss.value == 1.0
    assert loss.low == pytest.approx(1.0)


def test_one_model_is_gone_before_the_next_one_is_there(make_bert, tmp_path, alive_at_loads):
    source = make_bert()
    compress_model(source, tmp_path / "checkpoint", recipe="ptq-w8a8")
    rows = ["sentence1\tsentence2\tscore", "a cat\ta dog\t1", "the cat\tthe cat\t5", "a dog\tthe fox\t2"]
    (tmp_path / "dev.tsv").write_text("\n".join(rows) + "\n")
    data = read_evaluation_set(tmp_path / "dev.tsv")
    alive = alive_at_loads(accuracy)
    result = measure_accuracy(source, tmp_path / "checkpoint", {}, data=data, progress=lambda *_: None)
    assert list(result.stages) == ["torch float32", "torch compressed"]
    assert alive == [0, 0]
