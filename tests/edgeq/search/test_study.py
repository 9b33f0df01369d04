"""The study alone: a made-up quality in place of models."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import optuna
import pytest

import edgeq.search.storage as storage_module
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.progress import silent
from edgeq.search.report import Measured, Predicted, Structure
from edgeq.search.space import METHODS, SHARES, Space, evenly
from edgeq.search.storage import Storage
from edgeq.search.study import Choices, Outcome, RefusedError, Study

SPACE = Space(
    tuple(METHODS), blocks=(0, 3), factors=("none", "low-rank, odd"), vocabulary=Path("c.txt"), depth=4, rank=9
)
DIRECTIONS = ["maximize", "minimize"]


def _attempt(choices: Choices) -> Outcome:
    quality = list(METHODS).index(choices.method) + choices.share - choices.structure.blocks
    found = Measured(
        choices.method,
        recipe="",
        metric="accuracy",
        value=quality,
        bytes=1,
        share=choices.share,
        structure=choices.structure,
        widths={},
        predicted=Predicted(1, 0.0),
        latency=None,
    )
    return Outcome((quality, 100 * choices.share), found)


def _study(storage: Storage, space: Space = SPACE, *, name: str = "one") -> Study:
    return Study(storage, name, space, directions=DIRECTIONS, seed=0)


def test_all_methods_come_first_and_nothing_is_tried_twice(tmp_path: Path) -> None:
    seen: list[Choices] = []

    def attempt(choices: Choices) -> Outcome:
        seen.append(choices)
        return _attempt(choices)

    study = _study(Storage(None, tmp_path))
    study.run(attempt, trials=9, hours=None, progress=silent)
    assert [one.method for one in seen[:3]] == list(METHODS)
    assert all(one.share == 1.0 and one.structure == Structure() for one in seen[:3])
    assert seen[3].structure == Structure(pruned=True)
    assert len(seen) == len(set(seen)) == study.finished == 9
    assert all(one.method == "distill" for one in seen if one.structure.blocks)
    measured = study.measured
    assert max(measured, key=lambda number: measured[number].value) in study.best_numbers


def test_a_small_space_ends_by_itself(tmp_path: Path) -> None:
    space = Space(("nearest",))
    assert space.combinations == len(SHARES)
    study = _study(Storage(None, tmp_path), space)
    study.run(_attempt, trials=100, hours=None, progress=silent)
    assert study.finished == len(SHARES)


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    storage, seen = Storage(None, tmp_path), list[Choices]()

    def stops(choices: Choices) -> Outcome:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(choices)
        return _attempt(choices)

    with pytest.raises(KeyboardInterrupt):
        _study(storage).run(stops, trials=5, hours=None, progress=silent)
    assert len(_study(storage).measured) == 2
    again: list[Choices] = []

    def goes_on(choices: Choices) -> Outcome:
        again.append(choices)
        return _attempt(choices)

    study = _study(Storage(None, tmp_path))
    study.run(goes_on, trials=5, hours=None, progress=silent)
    assert study.finished == 5
    assert len(again) == 3
    assert not set(again) & set(seen)
    # The one that waited already, and the one that was interrupted.
    assert [(one.method, one.structure) for one in again[:2]] == [
        ("distill", Structure(pruned=True)),
        ("distill", Structure()),
    ]
    assert all(one.state.name != "WAITING" for one in _study(Storage(None, tmp_path))._trials())


def test_a_candidate_of_a_killed_process_is_tried_again(tmp_path: Path) -> None:
    program = f"""
        import os
        from pathlib import Path
        from edgeq.progress import silent
        from edgeq.search.space import Space
        from edgeq.search.storage import Storage
        from edgeq.search.study import Study
        space = Space(("nearest", "error-feedback"))
        study = Study(Storage(None, Path({str(tmp_path)!r})), "one", space, directions={DIRECTIONS}, seed=0)
        study.run(lambda _choices: os._exit(3), trials=2, hours=None, progress=silent)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == 3
    seen: list[Choices] = []

    def attempt(choices: Choices) -> Outcome:
        seen.append(choices)
        return _attempt(choices)

    study = _study(Storage(None, tmp_path), Space(("nearest", "error-feedback")))
    study.run(attempt, trials=2, hours=None, progress=silent)
    assert [(one.method, one.share) for one in seen] == [("error-feedback", 1.0), ("nearest", 1.0)]


def test_limits_and_failures_are_told(tmp_path: Path) -> None:
    def picky(choices: Choices) -> Outcome:
        if choices.method == "nearest":
            raise RefusedError("too slow")
        if choices.method == "distill":
            raise EdgeqError("the loss is not a number")
        return _attempt(choices)

    study = _study(Storage(None, tmp_path))
    study.run(picky, trials=4, hours=None, progress=silent)
    assert {one.reason for one in study.refused} == {"too slow", "the loss is not a number"}
    assert {one.choices["method"] for one in study.refused if one.reason == "too slow"} == {"nearest"}

    def fails(choices: Choices) -> Outcome:
        raise EdgeqError(f"{choices.method} does not work")

    with pytest.raises(EdgeqError, match=r"no candidate could be made: .* does not work"):
        _study(Storage(None, tmp_path), name="two").run(fails, trials=2, hours=None, progress=silent)


def test_no_candidate_begins_after_the_time(tmp_path: Path) -> None:
    now, said = [0.0], list[str]()

    def takes_an_hour(choices: Choices) -> Outcome:
        now[0] += 3600.0
        return _attempt(choices)

    def tell(what: str, done: int, total: int) -> None:
        said.append(f"{what} {done}/{total}")

    study = _study(Storage(None, tmp_path))
    study.run(takes_an_hour, trials=9, hours=2.0, progress=tell, clock=lambda: now[0])
    assert study.finished == 2
    assert said == ["candidates 0/9", "candidates, about 480 minutes left 1/9", "candidates 2/9"]


@pytest.mark.slow
def test_several_processes_share_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    _study(Storage(url, tmp_path))
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from edgeq.progress import silent
        from edgeq.search.storage import Storage
        from tests.edgeq.search import test_study as here
        def slow(choices):
            time.sleep(0.05)
            return here._attempt(choices)
        study = here._study(Storage(sys.argv[1], Path(sys.argv[2])))
        study.run(slow, trials=8, hours=None, progress=silent)
        """
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    arguments = [sys.executable, "-c", code, url, str(tmp_path)]
    workers = [subprocess.Popen(arguments, env=environment) for _ in range(2)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    study = _study(Storage(url, tmp_path))
    assert 8 <= study.finished <= 9  # two may begin the last one at the same moment
    choices = [(one.method, one.share, one.structure) for one in study.measured.values()]
    assert len(choices) - len(set(choices)) <= 1
    processes = {one.user_attrs["process"] for one in study._trials() if one.state.name == "COMPLETE"}
    assert os.getpid() not in processes


def test_a_candidate_that_another_process_has_finished_by_now_counts_once(tmp_path: Path) -> None:
    """As where SQLite gave it to both."""
    study, other = (_study(Storage(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)) for _ in range(2))
    attempts: list[Choices] = []

    def beaten(choices: Choices) -> Outcome:
        attempts.append(choices)
        if len(attempts) == 1:
            (running,) = [one for one in other._trials() if one.state.name == "RUNNING"]
            other._try(optuna.trial.Trial(other._study, running._trial_id), _attempt)
        return _attempt(choices)

    study.run(beaten, trials=3, hours=None, progress=silent)
    assert study.finished == len(study.measured) == 3
    assert len(attempts) == 3


@pytest.mark.parametrize(
    "where",
    ["{}/none/study.journal", "{}", "sqlite:///{}/none/study.db", "nonsense://host/name", "postgresql://me:secret@/x"],
)
def test_a_storage_that_cannot_be_opened_is_refused(where: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--storage") as found:
        Storage(where.format(tmp_path), tmp_path)
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_a_database_that_goes_away_is_named_after_some_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(storage_module.time, "sleep", waited.append)
    storage = Storage(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)
    calls: list[int] = []

    def away() -> Any:
        calls.append(1)
        raise optuna.exceptions.StorageInternalError("no connection\nmore")

    with pytest.raises(EdgeqError, match=r"study.db went away \(no connection\).* same command again"):
        storage.reached(away)
    assert len(calls) == 1 + len(waited)

    def comes_back() -> int:
        calls.append(1)
        if len(calls) % 2:
            raise optuna.exceptions.StorageInternalError("no connection")
        return 7

    assert storage.reached(comes_back) == 7


def test_a_journal_in_whose_place_a_pipe_lies_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.journal")
    with pytest.raises(FormatError, match=r"study\.journal should be a file, found a named pipe"):
        Storage(None, tmp_path)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_text("this is no journal\n")
    with pytest.raises(EdgeqError, match=r"study.journal"):
        _study(Storage(None, tmp_path))


def test_structures_are_tables_of_a_recipe() -> None:
    assert [evenly(count, 12) for count in (2, 3, 6)] == [(0, 11), (0, 6, 11), (0, 2, 4, 7, 9, 11)]
    tables = SPACE.tables(Structure(3, "low-rank, odd", pruned=True))
    assert "keep = [0, 2, 3]" in tables
    assert 'blocks = "odd"' in tables
    assert "c.txt" in tables
    assert SPACE.tables(Structure()) == ""
    labels = [one.label for one in SPACE.structures]
    assert len(labels) == len(set(labels)) == 8
