"""A run that is stopped in its first stage, by Ctrl-C or by force, goes on with the same command."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from edgeq.deploy import deploy
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.recipes import TrainingRequest
from edgeq.results import RunRecord, StageRecord
from tests.edgeq.runs import about, write_record


@pytest.fixture(scope="module")
def classifier(make_bert):
    return make_bert("BertForSequenceClassification", seed=13)


@pytest.fixture
def options(tmp_path):
    """A training of six steps, evaluated and saved after each third."""
    data = tmp_path / "data.tsv"
    data.write_text("sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 12)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text("extends = 'xtc-l3-w1a8'\nname = 'tiny'\n[layers]\nkeep = [1]\n[training]\nbatch_size = 8\n")
    return {"recipe": recipe, "training": TrainingRequest(train_data=data, eval_data=data, epochs=2)}


def _stop_at(word, step):
    """A progress that presses Ctrl-C, and the training steps that it was told of."""
    steps = []

    def progress(what, done, _total):
        if "training (" in what:
            steps.append(done)
        if word in what and done == step:
            raise KeyboardInterrupt

    return progress, steps


def test_ctrl_c_keeps_the_checkpoints_of_a_training_in_a_fresh_folder(classifier, options, tmp_path):
    run = tmp_path / "run"
    stop, _ = _stop_at("training (", 4)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, progress=stop, **options)
    assert len(list(run.glob("training-*/state-*"))) == 1
    stop, steps = _stop_at("export: ", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, progress=stop, **options)
    assert steps == [4, 5, 6]
    assert (run / "checkpoint" / "model.safetensors").is_file()


def test_ctrl_c_before_anything_was_done_leaves_nothing(classifier, tmp_path):
    stop, _ = _stop_at("loading the model", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, tmp_path / "run", recipe="ptq-w8a8", progress=stop)
    assert not (tmp_path / "run").exists()


VICTIM = """
    import os, signal, sys
    from edgeq.deploy import deploy

    def progress(what, done, total):
        if "writing the checkpoint" in what:
            os.kill(os.getpid(), signal.SIGKILL)

    deploy(sys.argv[1], sys.argv[2], recipe="ptq-w8a8", progress=progress)
"""


def test_a_run_that_was_killed_in_its_first_stage_is_accepted(classifier, tmp_path):
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(VICTIM), classifier, run])
    assert done.returncode == -signal.SIGKILL
    assert (run / "deploy.json").is_file()
    stop, _ = _stop_at("export: ", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, recipe="ptq-w8a8", progress=stop)
    assert (run / "checkpoint" / "model.safetensors").is_file()


def test_a_folder_that_was_only_locked_is_accepted_and_one_with_more_is_not(classifier, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".deploy.lock").touch()
    (run / ".deploy.json.k1ll3d").touch()
    stop, _ = _stop_at("export: ", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, recipe="ptq-w8a8", progress=stop)
    (tmp_path / "other").mkdir()
    for name in (".deploy.lock", "thesis.txt"):
        (tmp_path / "other" / name).touch()
    with pytest.raises(UsageError, match="not empty"):
        deploy(classifier, tmp_path / "other", recipe="ptq-w8a8")


def test_only_what_edgeq_left_half_written_is_removed(classifier, tmp_path):
    run = tmp_path / "run"
    (run / ".checkpoint.x1y2z3.partial").mkdir(parents=True)
    (run / ".mine.partial").mkdir()
    (run / ".mine.json.backup").touch()
    write_record(run)
    stop, _ = _stop_at("loading the model", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, recipe="ptq-w8a8", progress=stop)
    assert {".mine.partial", ".mine.json.backup"} <= set(os.listdir(run))
    assert ".checkpoint.x1y2z3.partial" not in os.listdir(run)


@pytest.mark.parametrize("name", ["../mine", "/mine", "bundles/../../mine", "", "a\0b"])
def test_a_record_that_names_files_outside_the_run_is_refused(name, classifier, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "mine").touch()
    RunRecord(about(), {"compile other": StageRecord("0", {name: "0"})}).write(run / "deploy.json")
    with pytest.raises(FormatError, match="no file of this folder"):
        deploy(classifier, run, recipe="ptq-w8a8")
    assert (tmp_path / "mine").is_file()


def test_a_link_leads_no_stage_that_left_out_of_the_run(classifier, tmp_path):
    run = tmp_path / "run"
    for folder in (run / "bundles" / "old", tmp_path / "home"):
        folder.mkdir(parents=True)
        (folder / "weights.bin").touch()
    (run / "bundles" / "linked").symlink_to(tmp_path / "home")
    files = dict.fromkeys(("bundles/old/weights.bin", "bundles/linked/weights.bin", "bundles/linked"), "0")
    RunRecord(about(), {"compile other": StageRecord("0", files)}).write(run / "deploy.json")
    stop, _ = _stop_at("loading the model", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, run, recipe="ptq-w8a8", progress=stop)
    assert (tmp_path / "home" / "weights.bin").is_file()
    assert not (run / "bundles" / "old").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_something_else_in_the_place_of_the_lock(kind, classifier, tmp_path):
    run, lock = tmp_path / "run", tmp_path / "run" / ".deploy.lock"
    run.mkdir()
    (tmp_path / "mine").write_text("thesis")
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "mine")
    with pytest.raises(FormatError, match=r"\.deploy\.lock should be an empty file"):
        deploy(classifier, run, recipe="ptq-w8a8")
    assert (tmp_path / "mine").read_text() == "thesis"


def test_a_model_with_few_positions_needs_no_option(make_bert, tmp_path):
    small = make_bert(max_position_embeddings=24)
    stop, _ = _stop_at("loading the model", 0)
    with pytest.raises(KeyboardInterrupt):
        deploy(small, tmp_path / "run", recipe="ptq-w8a8", progress=stop)
    with pytest.raises(EdgeqError, match="at most 24 tokens of a text in the profile; give --sequence 24 or less"):
        deploy(small, tmp_path / "run", recipe="ptq-w8a8", sequence=25)
