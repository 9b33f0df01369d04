"""The tables of claims: their runs, the choice of learning rates, intervals, and the queue on tiny models."""

import dataclasses
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.claims import claim as claims
from benchmarks.claims import measure, quantgpt, queue, two_stage
from benchmarks.claims.claim import Claim, finished_runs, run_claim
from benchmarks.claims.intervals import paired_difference
from benchmarks.claims.rates import search, with_rate
from benchmarks.claims.table import Row, Table
from edgeq.errors import EdgeqError
from edgeq.recipes import load_recipe

CLAIM = Claim(name="a", task="sst2", base="xtc-l12-w1a8", changes={}, epochs=1.0, seed=1)


@pytest.mark.parametrize("name", list(queue.TABLES))
def test_every_run_of_every_table_is_a_recipe_that_loads(name: str, tmp_path: Path) -> None:
    table = queue.TABLES[name](1.0)
    runs = [claim for row in table.rows for claim in row.claims]
    runs += [claim for one in table.searches.values() for claim in one.runs.values()]
    assert len({claim.name for claim in runs}) == len(runs)
    assert {row.search for row in table.rows} <= set(table.searches)
    for claim in runs:
        (tmp_path / "recipe.toml").write_text(claim.recipe_text)
        recipe = load_recipe(tmp_path / "recipe.toml")
        assert recipe.trains
        assert recipe.name == claim.name


def test_compared_methods_get_the_same_steps() -> None:
    table = queue.TABLES["quantgpt"](2.0)
    runs = [claim for row in table.rows if not row.label.endswith(quantgpt.LONG) for claim in row.claims]
    assert {(claim.epochs, claim.seed) for claim in runs} == {(2 * quantgpt.EPOCHS, quantgpt.SEED)}
    longer = [claim for row in table.rows if row.label.endswith(quantgpt.LONG) for claim in row.claims]
    assert [claim.epochs for claim in longer] == [2 * quantgpt.LONGER * quantgpt.EPOCHS] * 2
    pair = queue.TABLES["two-stage"](1.0).rows
    assert {claim.epochs for row in pair for claim in row.claims} == {two_stage.EPOCHS}
    assert [tuple(claim.seed for claim in row.claims) for row in pair] == [(1, 2, 3)] * len(pair)


def test_a_recipe_file_says_what_was_changed() -> None:
    changes = {"stage": [], "family": "own", "weights": {"bits": 2}, "distill": {"contrastive": {"weight": 0.5}}}
    written = tomllib.loads(dataclasses.replace(CLAIM, changes=changes).recipe_text)
    assert written == {"extends": "xtc-l12-w1a8", "name": "a", **changes}


def test_the_best_rate_is_that_of_the_best_short_run() -> None:
    low = search(CLAIM, rates=(1.0, 2.0, 3.0), epochs=0.1, metric="valid", lower=True)
    results = {low.runs[rate].name: {"valid": value} for rate, value in ((1.0, 5.0), (2.0, 4.0))}
    assert [claim.name for claim in low.missing(results)] == [low.runs[3.0].name]
    results[low.runs[3.0].name] = {"failed": "diverged"}
    assert low.best(results) == 2.0
    high = dataclasses.replace(low, lower=False)
    assert high.best(results) == 1.0
    assert {claim.epochs for claim in low.runs.values()} == {0.1}
    rates = with_rate(CLAIM, 5e-4).changes["training"]
    assert rates == {"learning_rate": 5e-4, "quantizer_learning_rate": 2e-4}


def test_rows_wait_for_their_search_and_go_seed_by_seed() -> None:
    tried = search(CLAIM, rates=(1e-3,), epochs=0.1, metric="accuracy", lower=False)
    rows = [
        Row(label, tuple(dataclasses.replace(CLAIM, name=f"{label}{seed}", seed=seed) for seed in (1, 2)), "s")
        for label in "xy"
    ]
    table = Table("t", "T", rows, {"s": tried}, lambda _table, _finished: ["text"])
    assert [claim.name for claim in table.ready({})] == ["search-a-0.001"]
    finished = {"search-a-0.001": {"accuracy": 0.5}}
    assert [claim.name for claim in table.ready(finished)] == ["x1", "y1", "x2", "y2"]
    assert table.ready(finished)[0].changes["training"]["learning_rate"] == 1e-3
    assert [claim.name for claim in table.ready(finished | {"x1": {}})] == ["y1", "x2", "y2"]


def test_paired_differences() -> None:
    same = paired_difference(["1010"] * 2, ["1010"] * 2)
    assert (same.points, same.low, same.high) == (0, 0, 0)
    better = paired_difference(["1" * 400], ["1" * 200 + "0" * 200])
    assert better.points == 50
    assert 40 < better.low < 50 < better.high < 60
    # One teacher stands beside students of several seeds.
    assert paired_difference(["1100", "1000"], ["1111"]).points == pytest.approx(-62.5)


@pytest.fixture
def places(
    make_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> measure.Places:
    """Data and a teacher of a few thousand weights."""
    data = tmp_path / "data" / "sst2"
    data.mkdir(parents=True)
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text("sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 4)
    teacher = make_bert("BertForSequenceClassification", seed=31)
    monkeypatch.setattr(measure.Places, "source", lambda _places, _task: teacher)
    return measure.Places(tmp_path / "data", tmp_path / "runs")


def _tiny() -> Claim:
    training = {"batch_size": 4, "max_length": 16, "learning_rate": 1e-3}
    return dataclasses.replace(CLAIM, changes={"training": training})


def test_a_run_is_measured_and_written_down(places: measure.Places) -> None:
    result = run_claim(_tiny(), places)
    assert result["accuracy"] == result["correct"].count("1") / 8
    assert len(result["correct"]) == 8
    assert result["steps"] == 2
    assert result["stored_bytes"]["stored_bytes"] > 0
    assert finished_runs(places.runs) == {"a": json.loads(json.dumps(result))}
    assert not list(places.runs.glob("a/training/state-*"))
    assert list(places.runs.glob("a/training/stage-*"))


def test_a_training_that_diverges_is_a_result(
    places: measure.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise EdgeqError("training stopped at step 3")

    monkeypatch.setattr(claims, "compress_model", diverge)
    assert run_claim(_tiny(), places)["failed"] == "training stopped at step 3"
    assert "accuracy" not in finished_runs(places.runs)["a"]


def test_the_queue_does_what_is_left_and_writes_tables(
    places: measure.Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = search(_tiny(), rates=(1e-3,), epochs=0.5, metric="accuracy", lower=False)
    table = Table(
        "xtc", "T", [Row("r", (dataclasses.replace(_tiny(), name="row"),), "s")], {"s": tried}, lambda *_: ["text"]
    )
    monkeypatch.setitem(queue.TABLES, "xtc", lambda _scale: table)
    monkeypatch.setattr(queue, "train_teacher", lambda *_, **__: _teacher(places))
    options = ["--data", str(places.data), "--runs", str(places.runs), "--results", str(tmp_path / "results")]
    assert queue.main([*options, "--table", "xtc", "--count", "2"]) == 0
    assert "search-a-0.001" in finished_runs(places.runs)
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())
    assert queue.main([*options, "--table", "xtc"]) == 0
    assert "all runs are finished" in capsys.readouterr().out
    assert "1 of 1 runs are finished" in (tmp_path / "results" / "xtc.md").read_text()
    row = json.loads((tmp_path / "results" / "xtc.json").read_text())["rows"][0]
    assert row["runs"][0]["changes"]["training"]["learning_rate"] == 1e-3
    assert queue.main([*options, "--table", "xtc", "--list"]) == 0
    assert capsys.readouterr().out.count("done") == 2
    assert queue.main([*options, "--table", "xtc", "--budget", "3"]) == 2
    assert "give another folder" in capsys.readouterr().err


def _teacher(places: measure.Places) -> dict[str, object]:
    folder = places.runs / measure.TEACHER
    folder.mkdir(parents=True)
    result = {"name": measure.TEACHER, "accuracy": 0.5, "correct": "10101010"}
    (folder / "result.json").write_text(json.dumps(result))
    return result


@pytest.mark.parametrize("name", list(queue.TABLES))
def test_tables_are_drawn_of_whatever_is_there(name: str) -> None:
    table = queue.TABLES[name](1.0)
    setting = {"processor": "p", "accelerator": None, "threads": 2, "torch": "2"}
    finished = {measure.TEACHER: {"accuracy": 0.9, "correct": "1110"}}
    assert "0 of" in table.to_markdown(finished, command="x")
    for row in table.rows:
        for run in row.claims:
            done = dataclasses.asdict(with_rate(run, 1e-3)) | {"setting": setting}
            done |= {"accuracy": 0.75, "correct": "1100", "valid": 120.0, "test": 118.0}
            finished[run.name] = done | {"stored_bytes": {"stored_bytes": 1 << 20, "weights": 1000}}
    text = table.to_markdown(finished, command="x")
    assert all(row.label in text for row in table.rows)
    assert "not measured yet" not in text
    last = table.rows[-1].claims[-1].name
    finished[last] = {key: finished[last][key] for key in ("changes", "seed", "setting")} | {"failed": "diverged"}
    assert table.to_markdown(finished, command="x")
    json.dumps(table.to_json(finished))
