"""Paired tests between runs, on results with known differences."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import edgeq.cli.main as cli
from edgeq.deploy.compare import compare
from edgeq.errors import FormatError, UsageError
from edgeq.results import Accuracy, Baseline, Predictions
from tests.edgeq.runs import write_record


def _run(folder: Path, recipe: str, predictions: Predictions) -> Path:
    folder.mkdir()
    write_record(folder, recipe=recipe)
    Accuracy(measured=True).write(folder / "accuracy.json")
    predictions.write(folder / "predictions.json")
    return folder


def _labels(right: np.ndarray, *, data: str = "d") -> Predictions:
    all_right, rows = np.ones((len(right), 1)).tolist(), right[:, None].astype(float).tolist()
    stages = {"torch float32": all_right, "torch compressed": rows, "bundle host": rows}
    return Predictions("accuracy", stages, data_sha256=data)


def test_accuracy_is_tested_on_the_examples_that_differ(tmp_path: Path) -> None:
    right = np.ones(200, bool)
    one, two = right.copy(), right.copy()
    one[:20], two[:40] = False, False  # the second is wrong wherever the first is, and twenty times more
    runs = [_run(tmp_path / "a", "good", _labels(one)), _run(tmp_path / "b", "bad", _labels(two))]
    result = compare(runs)
    assert result.metric == "accuracy"
    assert result.examples == 200
    assert result.first == Baseline("model, good", 0.9)
    (found,) = result.models
    assert found.difference == pytest.approx(-0.1)
    assert found.low < -0.1 < found.high < 0
    assert found.p == pytest.approx(2 * 0.5**20)  # twenty coins that fall on one side
    assert found.verdict == "worse"
    assert found.needed is None
    (back,) = compare(runs[::-1]).models
    assert back.verdict == "better"


def test_too_few_examples_cannot_tell_and_say_how_many_would(tmp_path: Path) -> None:
    one, two = np.ones(40, bool), np.ones(40, bool)
    one[:3], two[2:7] = False, False
    (found,) = compare([_run(tmp_path / "a", "x", _labels(one)), _run(tmp_path / "b", "y", _labels(two))]).models
    assert found.verdict == "cannot tell"
    assert found.p > 0.05
    assert found.needed > 100


def test_equal_runs_do_not_differ(tmp_path: Path) -> None:
    right = np.arange(50) > 4
    (found,) = compare([_run(tmp_path / "a", "x", _labels(right)), _run(tmp_path / "b", "y", _labels(right))]).models
    assert (found.difference, found.p, found.needed) == (0.0, 1.0, None)
    assert found.verdict == "cannot tell"


def _scores(noise: float, *, seed: int) -> Predictions:
    targets = np.random.default_rng(0).random(300)
    answers = targets + noise * np.random.default_rng(seed).standard_normal(300)
    rows = {"torch float32": (targets, targets), "torch compressed": (answers, targets)}
    stages = {name: np.stack(columns, axis=1).tolist() for name, columns in rows.items()}
    return Predictions("spearman", stages, data_sha256="s")


def test_correlations_are_tested_by_exchanging_answers(tmp_path: Path) -> None:
    good, bad, same = _scores(0.1, seed=1), _scores(0.4, seed=2), _scores(0.1, seed=3)
    runs = [_run(tmp_path / name, name, one) for name, one in (("good", good), ("bad", bad), ("same", same))]
    worse, alike = compare(runs).models
    assert worse.verdict == "worse"
    assert worse.p < 0.01
    assert alike.verdict == "cannot tell"


def _words(extra: float, *, seed: int) -> Predictions:
    generator = np.random.default_rng(seed)
    reference = -3 + 0.5 * np.random.default_rng(0).standard_normal(640)
    other = reference - extra + 0.05 * generator.standard_normal(640)
    stages = {"torch float32": reference.tolist(), "torch compressed": other.tolist()}
    return Predictions("perplexity", stages, context=32, data_sha256="t")


def test_a_single_run_is_compared_with_its_float_model(tmp_path: Path) -> None:
    result = compare([_run(tmp_path / "a", "w4", _words(0.1, seed=1))])
    assert result.first.label == "model, float32"
    (found,) = result.models
    assert found.label == "model, w4"
    assert found.difference > 0  # of perplexity, less is better
    assert found.verdict == "worse"


def test_perplexities_are_tested_by_windows(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", "w8", _words(0.1, seed=1)), _run(tmp_path / "b", "w4", _words(0.0, seed=2))]
    (found,) = compare(runs).models
    assert found.verdict == "better"
    assert found.difference < 0


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    right = np.ones(20, bool)
    run = _run(tmp_path / "a", "x", _labels(right))
    with pytest.raises(UsageError, match="different data"):
        compare([run, _run(tmp_path / "b", "y", _labels(right, data="other"))])
    with pytest.raises(UsageError, match=r"no deploy\.json"):
        compare([run, tmp_path])
    old = _run(tmp_path / "old", "x", _labels(right))
    (old / "predictions.json").unlink()
    with pytest.raises(UsageError, match="older edgeq"):
        compare([run, old])
    harmed = _run(tmp_path / "harmed", "x", dataclasses.replace(_labels(right), metric="spearman"))
    with pytest.raises(FormatError, match="damaged"):
        compare([run, harmed])
    Accuracy(measured=False).write(old / "accuracy.json")
    with pytest.raises(UsageError, match="not measured"):
        compare([old])


def test_the_command_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path / name, name, _labels(np.arange(60) >= wrong)) for name, wrong in (("w8", 2), ("w2", 30))]
    assert cli.main(["compare", *map(str, runs)]) == 0
    assert "worse" in capsys.readouterr().out
    assert cli.main(["compare", *map(str, runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["verdict"] == "worse"
    assert cli.main(["compare", str(tmp_path / "nowhere")]) == 2
