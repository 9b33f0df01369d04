"""The tables of claims: their runs, the choice of learning rates, intervals, and the queue on tiny models."""

import dataclasses
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.claims import claim as claims
from benchmarks.claims import kngpt2, measure, queue, training_logs, two_stage
from benchmarks.claims import quantgpt as new_quantgpt
from benchmarks.claims.bag_of_words import measure_bag_of_words
from benchmarks.claims.claim import REVISION, Claim, run_claim
from benchmarks.claims.first import quantgpt
from benchmarks.claims.intervals import paired_correlation, paired_difference, paired_ratio, verdict
from benchmarks.claims.rates import Rates, search, with_rate
from benchmarks.claims.records import read_records, write_record
from benchmarks.claims.students import gap_between, gap_to_teacher, measured, share_of_teacher, teachers_line
from benchmarks.claims.table import Row, Table
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.recipes import load_recipe

CLAIM = Claim(name="a", task="sst2", base="xtc-l12-w1a8", changes={}, epochs=1.0, seed=1)


@pytest.mark.parametrize("name", list(queue.TABLES))
def test_every_run_of_every_table_is_a_recipe_that_loads(name: str, tmp_path: Path) -> None:
    table = queue.TABLES[name](1.0)
    runs = [claim for row in table.rows for claim in row.claims]
    runs += [claim for one in table.searches.values() for claim in one.runs.values()]
    assert len({claim.name for claim in runs}) == len(runs)
    assert {row.search for row in table.rows if row.search is not None} <= set(table.searches)
    for claim in runs:
        (tmp_path / "recipe.toml").write_text(claim.recipe_text)
        recipe = load_recipe(tmp_path / "recipe.toml")
        assert recipe.trains
        assert recipe.name == claim.name


def test_changes_are_written_as_toml() -> None:
    stages = [{"name": "a", "share": 1e-5, "distill": {"logits": 1.0}}, {"name": 'b"'}]
    changes = {"stage": stages, "x": {"y": {"z": []}}}
    written = tomllib.loads(dataclasses.replace(CLAIM, changes=changes).recipe_text)
    assert written == {"extends": CLAIM.base, "name": CLAIM.name, **changes}


def test_compared_methods_get_the_same_steps() -> None:
    table = queue.TABLES["first-quantgpt"](2.0)
    runs = [claim for row in table.rows if not row.label.endswith(quantgpt.LONG) for claim in row.claims]
    assert {(claim.epochs, claim.seed) for claim in runs} == {(2 * quantgpt.EPOCHS, quantgpt.SEED)}
    longer = [claim for row in table.rows if row.label.endswith(quantgpt.LONG) for claim in row.claims]
    assert [claim.epochs for claim in longer] == [2 * quantgpt.LONGER * quantgpt.EPOCHS] * 4
    pair = queue.TABLES["two-stage"](1.0).rows
    # One augmented copy makes an epoch twice as long.
    assert {claim.epochs * (2 if "augment" in claim.changes else 1) for row in pair for claim in row.claims} == {
        two_stage.EPOCHS
    }
    for name, long in (("quantgpt", new_quantgpt.LONG), ("kngpt2", kngpt2.LONG)):
        lengths = {row.label.endswith(long): set() for row in queue.TABLES[name](1.0).rows}
        for row in queue.TABLES[name](1.0).rows:
            lengths[row.label.endswith(long)] |= {claim.epochs for claim in row.claims}
        assert lengths == {False: {0.125}, True: {0.5}}
    assert [tuple(claim.seed for claim in row.claims) for row in pair] == [(1, 2, 3)] * len(pair)


def test_a_recipe_file_says_what_was_changed() -> None:
    changes = {"stage": [], "family": "own", "weights": {"bits": 2}, "distill": {"contrastive": {"weight": 0.5}}}
    written = tomllib.loads(dataclasses.replace(CLAIM, changes=changes).recipe_text)
    assert written == {"extends": "xtc-l12-w1a8", "name": "a", **changes}


def test_the_best_rate_is_that_of_the_best_short_run() -> None:
    low = search(CLAIM, rates=(1.0, 2.0, 3.0), epochs=0.1, metric="valid", lower=True)
    results = {low.runs[Rates(rate)].name: {"valid": value} for rate, value in ((1.0, 5.0), (2.0, 4.0))}
    assert [claim.name for claim in low.missing(results)] == [low.runs[Rates(3.0)].name]
    results[low.runs[Rates(3.0)].name] = {"failed": "diverged"}
    assert low.best(results) == Rates(2.0)
    high = dataclasses.replace(low, lower=False)
    assert high.best(results) == Rates(1.0)
    assert {claim.epochs for claim in low.runs.values()} == {0.1}
    rates = with_rate(CLAIM, 5e-4).changes["training"]
    assert rates == {"learning_rate": 5e-4, "quantizer_learning_rate": 2e-4}


def test_both_rates_can_be_searched() -> None:
    both = search(CLAIM, rates=(1e-3, 2e-3), quantizer_rates=(None, 1e-2), epochs=0.1, metric="accuracy", lower=False)
    assert [claim.name for claim in both.runs.values()] == [
        "search-a-0.001", "search-a-0.001-0.01", "search-a-0.002", "search-a-0.002-0.01"
    ]  # fmt: skip
    rates = [claim.changes["training"]["quantizer_learning_rate"] for claim in both.runs.values()]
    assert rates == [4e-4, 1e-2, 8e-4, 1e-2]
    finished = {claim.name: {"accuracy": number} for number, claim in enumerate(both.runs.values())}
    assert both.best(finished) == Rates(2e-3, 1e-2)
    row = Row("r", (CLAIM,), "s")
    table = Table("t", "T", [row, Row("f", (dataclasses.replace(CLAIM, name="f"),), None, rates=Rates(3.0, 4.0))],
                  {"s": both}, lambda *_: [])  # fmt: skip
    ready = {claim.name: claim.changes["training"] for claim in table.ready(finished) if "search" not in claim.name}
    assert ready["a"] == {"learning_rate": 2e-3, "quantizer_learning_rate": 1e-2}
    assert ready["f"] == {"learning_rate": 3.0, "quantizer_learning_rate": 4.0}


def test_records_of_another_revision_of_the_code_do_not_count(tmp_path: Path) -> None:
    write_record(tmp_path, {"name": measure.teacher_name("t"), "teacher": "t"})
    closed, new = dataclasses.replace(CLAIM, until=1), dataclasses.replace(CLAIM, since=2)
    write_record(tmp_path, {key: value for key, value in _recorded(CLAIM).items() if key not in ("revision", "since")})
    assert [bool(read_records(tmp_path, [one]).get("a")) for one in (CLAIM, closed, new)] == [True, True, False]
    write_record(tmp_path, _recorded(CLAIM, revision=REVISION))
    assert [bool(read_records(tmp_path, [one]).get("a")) for one in (CLAIM, closed, new)] == [True, False, True]
    other = dataclasses.replace(CLAIM, source="gpt2-wikitext2-plateau")
    assert "a" not in read_records(tmp_path, [other])


def test_a_closed_run_is_not_run_again(places: measure.Places) -> None:
    closed = dataclasses.replace(CLAIM, until=1)
    table = Table("t", "T", [Row("r", (closed,), None, rates=Rates(1e-3))], {}, lambda *_: [])
    assert table.ready({}) == []
    with pytest.raises(UsageError, match="is of revision 1 of the code"):
        run_claim(closed, places)


def test_committed_tables_follow_from_the_committed_records(tmp_path: Path) -> None:
    shutil.copytree(queue.RESULTS / queue.RECORDS, tmp_path / "results" / queue.RECORDS)
    options = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert queue.main([*options, "--count", "0"]) == 0
    written = {file.name: file.read_text() for file in (tmp_path / "results").glob("*.md")}
    assert {"xtc.md", "two-stage.md", "tucker.md", "first-quantgpt.md", "first-kngpt2.md"} <= written.keys()
    for name, text in written.items():
        assert text == (queue.RESULTS / name).read_text(), name


def test_every_committed_record_is_of_a_recipe_as_it_is() -> None:
    records = [json.loads(file.read_text()) for file in (queue.RESULTS / queue.RECORDS).glob("*.json")]
    assert sum("base" in record for record in records) > 100
    for record in records:
        if "base" in record:
            assert record["base_sha256"] == load_recipe(record["base"]).sha256, record["name"]


def test_logs_are_thinned_and_keep_their_ends() -> None:
    lines: list[dict[str, Any]] = [
        {"step": step, "stage": "train", "loss": 1.0, "seconds": 2.0 * step} for step in range(1, 500)
    ]
    lines.insert(250, {"step": 250, "stage": "train", "evaluation": {"accuracy": 0.5}})
    thin = training_logs.thinned(lines)
    assert len(thin) == training_logs.MOST_LINES + 1
    assert (thin[0]["step"], thin[-1]["step"]) == (1, 499)
    assert sum("evaluation" in line for line in thin) == 1
    assert training_logs.thinned([]) == []
    second = [{"step": 500, "stage": "next", "loss": 1.0, "seconds": 3.0}]
    assert training_logs.training_seconds(lines + second) == 998.0 + 3.0
    assert training_logs.training_seconds([]) is None


def test_rows_wait_for_their_search_and_go_seed_by_seed() -> None:
    tried = search(CLAIM, rates=(1e-3,), epochs=0.1, metric="accuracy", lower=False)
    rows = [
        Row(label, tuple(dataclasses.replace(CLAIM, name=f"{label}{seed}", seed=seed) for seed in (1, 2)), "s")
        for label in "xy"
    ]
    table = Table("t", "T", rows, {"s": tried}, lambda _table, _finished: ["text"])
    assert [claim.name for claim in table.ready({})] == ["search-a-0.001"]
    finished = {"search-a-0.001": {"accuracy": 0.5, "changes": tried.runs[Rates(1e-3)].changes}}
    assert [claim.name for claim in table.ready(finished)] == ["x1", "y1", "x2", "y2"]
    rated = table.ready(finished)[0].changes
    assert rated["training"]["learning_rate"] == 1e-3
    assert [claim.name for claim in table.ready(finished | {"x1": {"changes": rated}})] == ["y1", "x2", "y2"]
    short = dataclasses.replace(CLAIM, name="z", epochs=CLAIM.epochs / 2)
    both = dataclasses.replace(table, rows=[*rows, Row("z", (short,), "s")])
    assert [claim.name for claim in both.ready(finished)] == ["z", "x1", "y1", "x2", "y2"]
    fixed = dataclasses.replace(table, rows=[dataclasses.replace(rows[0], rate=3e-4)])
    assert fixed.ready(finished)[0].changes["training"]["learning_rate"] == 3e-4
    # The search was made again, and says something else.
    other = with_rate(CLAIM, 5e-4).changes
    assert next(claim.name for claim in table.ready(finished | {"x1": {"changes": other}})) == "x1"


def _recorded(claim: Claim, **figures: object) -> dict[str, object]:
    own = {"teacher": "t", "revision": claim.until, "base_sha256": load_recipe(claim.base).sha256}
    return dataclasses.asdict(claim) | own | figures


def test_records_of_the_same_work_count_whatever_their_rate(tmp_path: Path) -> None:
    write_record(tmp_path, {"name": measure.teacher_name("t"), "teacher": "t"})
    write_record(tmp_path, _recorded(with_rate(CLAIM, 5e-4), accuracy=0.9))
    assert read_records(tmp_path, [CLAIM])["a"]["accuracy"] == 0.9
    longer = dataclasses.replace(CLAIM, epochs=2.0)
    other = dataclasses.replace(CLAIM, changes={"weights": {"bits": 2}})
    for changed in (longer, other, dataclasses.replace(CLAIM, seed=2)):
        assert "a" not in read_records(tmp_path, [changed])
    write_record(tmp_path, _recorded(CLAIM, base_sha256="of the recipe as it was"))
    assert "a" not in read_records(tmp_path, [CLAIM])
    write_record(tmp_path, _recorded(CLAIM))
    assert "a" in read_records(tmp_path, [CLAIM])
    write_record(tmp_path, _recorded(CLAIM) | {"teacher": "one without a record"})
    assert "a" not in read_records(tmp_path, [CLAIM])


def test_every_run_is_found_by_its_own_record(tmp_path: Path) -> None:
    for make in queue.TABLES.values():
        table = make(1.0)
        teachers = [measure.teacher_name("t", task) for task in measure.TEACHERS]
        for teacher in teachers:
            write_record(tmp_path, {"name": teacher, "teacher": "t"})
        for claim in table.claims:
            write_record(tmp_path, _recorded(with_rate(claim, 1e-3)))
        found = read_records(tmp_path, table.claims)
        assert found.keys() == {*teachers, *(claim.name for claim in table.claims)}
        # What was read compares equal to what is asked for, so that nothing runs twice.
        assert all(found[claim.name]["changes"] == with_rate(claim, 1e-3).changes for claim in table.claims)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    write_record(tmp_path, {"name": "a"})
    with pytest.raises(FormatError, match=r"a\.json is not the record of a run"):
        read_records(tmp_path, [CLAIM])


def test_paired_differences() -> None:
    same = paired_difference(["1010"] * 2, ["1010"] * 2)
    assert (same.points, same.low, same.high) == (0, 0, 0)
    better = paired_difference(["1" * 400], ["1" * 200 + "0" * 200])
    assert better.points == 50
    assert 40 < better.low < 50 < better.high < 60
    # One teacher stands beside students of several seeds.
    assert paired_difference(["1100", "1000"], ["1111"]).points == pytest.approx(-62.5)


def test_students_are_compared_with_their_own_teacher_and_with_students_of_it() -> None:
    claims = [dataclasses.replace(CLAIM, name=f"{side}{seed}", seed=seed) for side in "xy" for seed in (1, 2)]
    rows = [Row("x", tuple(claims[:2]), "s"), Row("y", tuple(claims[2:]), "s")]
    marks = {"x1": "1110", "x2": "1100", "y1": "1000", "y2": "1111"}
    taught = {"x1": "a", "x2": "b", "y1": "a", "y2": "a"}
    finished: dict[str, dict[str, Any]] = {
        name: {"correct": mark, "accuracy": mark.count("1") / 4, "seed": int(name[1]), "teacher": taught[name]}
        for name, mark in marks.items()
    }
    for name, mark in (("a", "1111"), ("b", "1100")):
        setting = {"processor": f"machine {name}"}
        finished[measure.teacher_name(name)] = {"correct": mark, "accuracy": mark.count("1") / 4, "setting": setting}
    students = measured(rows[0], finished)
    assert gap_to_teacher(students, finished).points == -12.5
    assert share_of_teacher(students, finished) == pytest.approx((0.75 + 1.0) / 2)
    gap = gap_between(*rows, finished)
    assert gap is not None
    assert (gap[0].points, gap[1]) == (50.0, 1)  # seed 2 has students of two teachers
    line = teachers_line(rows, finished)
    assert "100.00 (fine-tuned on machine a; of students with seed 1, 2)" in line
    assert "50.00 (fine-tuned on machine b; of students with seed 2)" in line
    assert gap_between(rows[0], Row("z", (), "s"), finished) is None


@pytest.fixture
def places(make_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> measure.Places:
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


def test_a_run_is_measured_and_written_down(places: measure.Places, tmp_path: Path) -> None:
    result = run_claim(_tiny(), places)
    assert result["accuracy"] == result["correct"].count("1") / 8
    assert len(result["correct"]) == 8
    assert result["steps"] == 2
    assert result["stored_bytes"]["stored_bytes"] > 0
    assert result["teacher"] == measure.checkpoint_sha256(places.source("sst2"))
    write_record(tmp_path, {"name": measure.teacher_name(result["teacher"])})
    write_record(tmp_path, result)
    assert read_records(tmp_path, [_tiny()])["a"] == json.loads(json.dumps(result))
    assert not list(places.runs.glob("a/training/state-*"))
    assert list(places.runs.glob("a/training/stage-*"))


@pytest.mark.parametrize(
    ("low", "high", "goal", "lower", "word"),
    [
        (0.95, 0.99, 0.94, False, "met"),
        (0.90, 0.99, 0.94, False, "not decided"),
        (0.90, 0.93, 0.94, False, "missed"),
        (1.05, 1.10, 1.20, True, "met"),
        (1.15, 1.25, 1.20, True, "not decided"),
        (1.25, 1.30, 1.20, True, "missed"),
    ],
)
def test_an_aim_is_met_where_the_interval_clears_it(
    low: float, high: float, goal: float, lower: bool, word: str
) -> None:
    assert verdict(low, high, goal, lower=lower) == word


def test_ratios_of_perplexities_are_of_the_windows() -> None:
    random = np.random.default_rng(0)
    losses = 1200 + 50 * random.standard_normal(400)
    better = (losses - 256 * np.log(1.1) + random.standard_normal(400)).tolist()
    ratio = paired_ratio([losses.tolist()], [better])
    assert ratio.value == pytest.approx(1.1, rel=1e-3)
    assert ratio.low < 1.1 < ratio.high < 1.101


def test_correlations_are_compared_on_the_same_pairs() -> None:
    wanted = list(range(60))
    noisy = [value + (7 if value % 2 else -7) for value in wanted]
    gap = paired_correlation([noisy], [wanted], wanted)
    assert gap.low < gap.points < gap.high < 0
    same = paired_correlation([wanted, wanted], [wanted], wanted)
    assert (same.points, same.low, same.high) == (0, 0, 0)


def test_bags_of_words_learn_words_and_not_their_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for task in ("sst2", "stsb"):
        (data / task).mkdir(parents=True)
    rows = [("good film", 1), ("bad film", 0), ("good one", 1), ("bad one", 0)] * 20
    for split in ("train", "dev"):
        lines = [f"{sentence}\t{label}" for sentence, label in rows]
        (data / "sst2" / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    pairs = [("a b c", "a b c", 5.0), ("a b c", "c b a", 5.0), ("a b c", "d e f", 0.0), ("a b", "a f", 2.0)] * 10
    lines = [f"{first}\t{second}\t{score}" for first, second, score in pairs]
    for split in ("train", "dev"):
        (data / "stsb" / f"{split}.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n")
    bare = [f"g\tf\ty\t{number}\t{score}\t{first}\t{second}" for number, (first, second, score) in enumerate(pairs)]
    (data / "stsb" / "sts-test.labelled.tsv").write_text("\n".join(bare) + "\n")
    places = measure.Places(data, tmp_path / "runs")
    sentences = measure_bag_of_words("sst2", places)
    assert sentences["accuracy"] == 1.0
    assert sentences["correct"] == "1" * 80
    scored = measure_bag_of_words("stsb", places)
    assert scored["targets"] == [pair[2] for pair in pairs]
    assert scored["spearman"] > 0.9
    assert scored["predictions"][0] == scored["predictions"][1]


def test_a_run_starts_from_another_one_that_is_trained_first(places: measure.Places) -> None:
    first = dataclasses.replace(_tiny(), name="first", base="xtc-l3", changes={
        "layers": {"keep": [0]}, "training": {"batch_size": 4, "max_length": 16, "learning_rate": 1e-3}})  # fmt: skip
    second = dataclasses.replace(first, name="second", base="xtc-l3-w1a8", start_from="first")
    by_name = {"first": first, "second": second}
    assert queue._first_of(second, by_name, places) is first
    run_claim(first, places)
    assert queue._first_of(second, by_name, places) is second
    assert run_claim(second, places)["start_from"] == "first"


def test_a_part_of_the_text_is_pretrained_on(places: measure.Places) -> None:
    (places.data / "wikitext2").mkdir()
    (places.data / "wikitext2" / "train.txt").write_text("one\n" * 6 + "two\n" * 4)
    assert places.pretraining_text(1.0).read_text().count("two") == 4
    assert places.pretraining_text(0.7).read_text() == "one\n" * 6 + "two\n"


def test_a_training_that_diverges_is_a_result(places: measure.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise EdgeqError("training stopped at step 3")

    monkeypatch.setattr(claims, "compress_model", diverge)
    result = run_claim(_tiny(), places)
    assert result["failed"] == "training stopped at step 3"
    assert "accuracy" not in result


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
    assert {file.name for file in (tmp_path / "results").rglob("*.*")} == {
        "search-a-0.001.json", f"{_teacher(places)['name']}.json",
        "search-a-0.001.jsonl", f"{_teacher(places)['name']}.jsonl", "bag-of-words-sst2.json",
    }  # fmt: skip
    assert queue.main([*options, "--table", "xtc"]) == 0
    assert "all runs are finished" in capsys.readouterr().out
    assert "1 of 1 runs are finished" in (tmp_path / "results" / "xtc.md").read_text()
    assert "0.001: 0.5" in (tmp_path / "results" / "xtc.md").read_text()
    row = json.loads((tmp_path / "results" / queue.RECORDS / "row.json").read_text())
    assert row["changes"]["training"]["learning_rate"] == 1e-3
    assert queue.main([*options, "--table", "xtc", "--list"]) == 0
    assert capsys.readouterr().out.count("done") == 2
    assert queue.main([*options, "--table", "xtc", "--budget", "3"]) == 2
    assert "give another folder" in capsys.readouterr().err


def _teacher(places: measure.Places) -> dict[str, object]:
    (places.runs / measure.TEACHERS["sst2"] / "checkpoint").mkdir(parents=True, exist_ok=True)
    teacher = measure.checkpoint_sha256(places.source("sst2"))
    return {"name": measure.teacher_name(teacher), "accuracy": 0.5, "correct": "10101010", "teacher": teacher}


@pytest.mark.parametrize("name", list(queue.TABLES))
def test_tables_are_drawn_of_whatever_is_there(name: str) -> None:
    table = queue.TABLES[name](1.0)
    setting = {"processor": "p", "accelerator": None, "threads": 2, "torch": "2"}
    finished: dict[str, dict[str, Any]] = {
        measure.teacher_name("t"): {"accuracy": 0.9, "correct": "1110", "setting": setting},
        measure.teacher_name("t", "stsb"): {"spearman": 0.9, "predictions": [1.0, 2.0, 3.0, 3.5], "setting": setting},
        "bag-of-words-sst2": {"accuracy": 0.5, "correct": "1010", "words": 7},
        "bag-of-words-stsb": {"spearman": 0.4, "predictions": [2.0, 1.0, 4.0, 3.0], "targets": [1.0, 2.0, 3.0, 4.0]},
    }
    assert "0 of" in table.to_markdown(finished, command="x")
    for row in table.rows:
        for run in row.claims:
            done = dataclasses.asdict(with_rate(run, 1e-3)) | {"setting": setting, "teacher": "t"}
            if run.task == "stsb":
                done |= {"spearman": 0.8, "predictions": [1.0, 2.0, 3.0, 2.5]}
            else:
                done |= {"accuracy": 0.75, "correct": "1100", "valid": 120.0, "test": 118.0}
                done |= {"window_losses": [1220.0, 1230.0]} if run.since > 1 else {}
            finished[run.name] = done | {"stored_bytes": {"stored_bytes": 1 << 20, "weights": 1000}}
    text = table.to_markdown(finished, command="x")
    assert all(row.label in text for row in table.rows)
    assert "not measured yet" not in text
    last = table.rows[-1].claims[-1].name
    kept = {key: finished[last][key] for key in ("changes", "seed", "setting", "teacher")}
    finished[last] = kept | {"failed": "diverged"}
    assert table.to_markdown(finished, command="x")
    assert all(f"- {name} (" in text for name in table.searches)
