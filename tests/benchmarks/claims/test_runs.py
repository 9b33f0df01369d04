"""Runs of the newer tables on tiny models: pairs of sentences, texts before the task, stages that are one run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.claims import measure, stsb, tucker, two_stage
from benchmarks.claims.claim import Claim, run_claim
from benchmarks.claims.training_logs import read_log

TINY = {"batch_size": 4, "max_length": 16, "learning_rate": 1e-3}


@pytest.fixture
def places(tmp_path: Path) -> measure.Places:
    data = tmp_path / "data"
    for task in ("sst2", "stsb", "wikitext2"):
        (data / task).mkdir(parents=True)
    pairs = [("a good movie", "the good movie", 4.5), ("the lazy dog", "a movie", 0.5), ("a dog", "the dog", 4.0)] * 3
    for split in ("train", "dev"):
        (data / "sst2" / f"{split}.tsv").write_text("sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 4)
        rows = [f"{first}\t{second}\t{score}" for first, second, score in pairs]
        (data / "stsb" / f"{split}.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n")
    bare = [f"g\tf\ty\t{number}\t{score}\t{first}\t{second}" for number, (first, second, score) in enumerate(pairs)]
    (data / "stsb" / "sts-test.labelled.tsv").write_text("\n".join(bare) + "\n")
    (data / "wikitext2" / "train.txt").write_text("the quick dog\na lazy movie\n" * 6)
    return measure.Places(data, tmp_path / "runs")


def _tiny(claim: Claim) -> Claim:
    """The same run with batches and lengths for a tiny model."""
    changes = {**claim.changes, "training": {**claim.changes["training"], **TINY}}
    return dataclasses.replace(claim, changes=changes)


def test_a_student_of_pairs_is_measured_on_the_test_set(
    places: measure.Places, make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_bert("BertForSequenceClassification", seed=32, num_labels=1)
    monkeypatch.setattr(measure.Places, "source", lambda _places, _name: teacher)
    claim = stsb.stsb_table(1.0).rows[1].claims[0]
    result = run_claim(_tiny(dataclasses.replace(claim, epochs=2.0)), places)
    assert len(result["predictions"]) == 9
    assert -1 <= result["spearman"] <= 1
    assert len(set(result["predictions"])) == 3  # alike pairs score alike, in whatever order they were read


def test_texts_come_before_the_task_and_stages_have_their_schedules(
    places: measure.Places, make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_bert("BertForSequenceClassification", seed=31, intermediate_size=80)
    monkeypatch.setattr(measure.Places, "source", lambda _places, _name: teacher)
    row = next(row for row in tucker.tucker_table(1.0).rows if row.label.endswith(tucker.GENERAL))
    claim = dataclasses.replace(row.claims[0], epochs=2.0)
    claim = dataclasses.replace(claim, changes={**claim.changes, "factor": {"rank": 4, "bank": 3}})
    result = run_claim(_tiny(claim), places)
    assert "failed" not in result
    stages = [line["stage"] for line in read_log(places.runs / claim.name)]
    assert list(dict.fromkeys(stages)) == ["pretraining", "states", "logits"]
    assert result["pretraining"] == 1.0


@pytest.mark.parametrize("augmented", [False, True])
def test_ways_of_one_run_take_as_many_steps(
    augmented: bool, places: measure.Places, make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_bert("BertForSequenceClassification", seed=31)
    monkeypatch.setattr(measure.Places, "source", lambda _places, _name: teacher)
    labels = [two_stage.finer_label("binary", way, augmented=augmented) for way in two_stage.FINER]
    rows = [row for row in two_stage.two_stage_table(40.0).rows if row.label in labels]
    results = [run_claim(_tiny(row.claims[0]), places) for row in rows]
    assert len(results) == len(two_stage.FINER)
    assert not any("failed" in result for result in results)
    steps = [result["steps"] for result in results]
    if augmented:  # a copy in which no word was replaced is none
        assert 20 < min(steps) <= max(steps) <= 40
        assert max(steps) - min(steps) <= 5  # each stage ends with a whole step
    else:
        assert steps == [40] * len(steps)
