"""Stages run once, run again when something they depend on changed, and survive being killed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeq.deploy.pipeline import Stage, run_stages
from edgeq.deploy.state import RunState, exclusive, fingerprint_source
from edgeq.errors import FormatError, UsageError
from edgeq.files import MARKER, Output, new_folder, write_text
from edgeq.progress import silent
from tests.edgeq.runs import about

ROOT = Path(__file__).parents[3]


class Run:
    """A run of two stages: ``first`` writes a folder, ``second`` a file made from it."""

    def __init__(self, folder):
        self.folder = folder
        self.parameters = {}
        self.first_text = "first"
        self.fail = False

    def first(self, progress):
        with new_folder(self.folder / "first", Output("first")) as temporary:
            (temporary / "a.txt").write_text(self.first_text)
            (temporary / "b").mkdir()
            (temporary / "b" / "c.txt").write_text("c")

    def second(self, progress):
        progress("joining", 1, 1)
        if self.fail:
            raise RuntimeError("no luck")
        write_text(self.folder / "second.json", (self.folder / "first" / "a.txt").read_text() + " second")

    def go(self, progress=silent):
        known = (self.folder / "deploy.json").is_file()
        state = RunState.load(self.folder) if known else RunState(self.folder, about(), {})
        stages = [
            Stage("first", ("first",), (), self.parameters, self.first),
            Stage("second", ("second.json",), ("first",), {}, self.second),
        ]
        return run_stages(stages, state, progress=progress)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_finished_stages_are_not_repeated(run):
    assert run.go() == ["first", "second"]
    assert run.go() == []


def test_a_changed_parameter_repeats_its_stage_but_not_those_whose_input_stays_the_same(run):
    run.go()
    run.parameters = {"bits": 4}
    assert run.go() == ["first"]
    run.parameters, run.first_text = {"bits": 2}, "other"
    assert run.go() == ["first", "second"]
    assert (run.folder / "second.json").read_text() == "other second"


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_results_that_were_touched_are_made_again(run, harm):
    run.go()
    if harm == "change":
        (run.folder / "first" / "b" / "c.txt").write_text("x")
    else:
        (run.folder / "first" / "a.txt").unlink()
    assert run.go() == ["first"]
    assert sorted(path.name for path in (run.folder / "first").iterdir()) == [MARKER, "a.txt", "b"]


def test_what_a_user_put_among_results_is_not_erased(run):
    run.go()
    (run.folder / "first" / "new.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"new\.txt was not written"):
        run.go()
    assert (run.folder / "first" / "new.txt").read_text() == "mine"


def test_a_failed_stage_leaves_the_finished_ones(run):
    run.fail = True
    with pytest.raises(RuntimeError, match="no luck"):
        run.go()
    run.fail = False
    assert run.go() == ["second"]


def test_progress_names_the_stage(run):
    told = []
    run.go(lambda what, done, total: told.append(what))
    run.go(lambda what, done, total: told.append(what))
    assert told == [
        "second: joining",
        *(f"{name}: unchanged since the last run" for name in ("first", "second")),
    ]


def test_stages_that_left_the_run_take_their_files_with_them(run):
    run.go()
    state = RunState.load(run.folder)
    state.forget_all_but({"second"})
    assert not (run.folder / "first").exists()
    assert (run.folder / "second.json").exists()
    assert set(RunState.load(run.folder).stages) == {"second"}


VICTIM = """
    import os, signal, sys
    from pathlib import Path
    from edgeq.deploy.pipeline import Stage, run_stages
    from edgeq.deploy.state import RunState, exclusive
    from edgeq.files import MARKER, Output, new_folder, write_text
    from tests.edgeq.runs import about

    folder = Path(sys.argv[1])

    def first(progress):
        write_text(folder / "first.json", "1")

    def second(progress):
        with new_folder(folder / "bundles" / "host", Output("compile")) as temporary:
            (temporary / "half").write_text("written")
            if sys.argv[2] == "kill":
                (folder / ".parity.json.k1ll3d").write_text("half")  # as a killed write_text leaves it
                os.kill(os.getpid(), signal.SIGKILL)

    state = RunState.load(folder) if (folder / "deploy.json").is_file() else RunState(folder, about(), {})
    stages = [
        Stage("first", ("first.json",), (), {}, first),
        Stage("second", ("bundles/host",), ("first",), {}, second),
    ]
    with exclusive(folder):
        print(run_stages(stages, state, progress=lambda *told: None))
"""


def test_a_killed_run_goes_on_where_it_was_and_leaves_nothing_half_written(tmp_path):
    def go(mode):
        script = textwrap.dedent(VICTIM)
        return subprocess.run([sys.executable, "-c", script, tmp_path, mode], capture_output=True, text=True, cwd=ROOT)

    assert go("kill").returncode == -signal.SIGKILL
    assert not (tmp_path / "bundles" / "host").exists()
    assert len(list((tmp_path / "bundles").iterdir())) == 1, "the kill should have left a temporary folder"
    done = go("finish")
    assert done.stdout.strip() == "['second']", done.stderr
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["host"]
    assert not (tmp_path / ".parity.json.k1ll3d").exists()


def test_two_processes_do_not_write_one_run(tmp_path):
    with exclusive(tmp_path):
        script = "import sys, pathlib; from edgeq.deploy.state import exclusive\n"
        script += "with exclusive(pathlib.Path(sys.argv[1])): pass"
        done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
        assert "another edgeq is writing" in done.stderr
        assert done.returncode == 1
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "edgeq-run"}', "\x00\xff"])
def test_a_damaged_state_is_a_sentence(tmp_path, text):
    (tmp_path / "deploy.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=r"deploy\.json"):
        RunState.load(tmp_path)


def test_a_state_of_another_version_is_refused(tmp_path):
    (tmp_path / "deploy.json").write_text('{"format": "edgeq-run", "version": 99, "stages": {}, "about": {}}')
    with pytest.raises(FormatError, match="should be edgeq-run version 2, found 'edgeq-run' version 99"):
        RunState.load(tmp_path)


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"no deploy\.json"):
        RunState.load(tmp_path)


def test_a_source_is_known_by_its_contents_not_its_times(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint_source(str(tmp_path))
    os.utime(tmp_path / "config.json", (1, 1))
    assert fingerprint_source(str(tmp_path)) == before
    (tmp_path / "config.json").write_text("{} ")
    assert fingerprint_source(str(tmp_path)) != before
    assert fingerprint_source("org/name") != fingerprint_source("org/other")
