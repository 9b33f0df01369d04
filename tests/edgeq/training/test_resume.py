"""A run that is stopped at any moment and resumed gives what it gives undisturbed, bit for bit."""

import dataclasses
import json
import math

import pytest
import torch

from edgeq.errors import UsageError
from edgeq.formats.json_file import read_json_object
from edgeq.quant.trainable import make_trainable, set_stage
from edgeq.training import StageSettings, TrainingSettings, train
from edgeq.training.figures import Figures
from edgeq.training.run_folder import TrainingFolder

STAGES = (
    StageSettings(name="eight", bits=8, activations=False),
    StageSettings(name="two", bits=2, activations=False),
    StageSettings(name="again", bits=2, activations=True, initialise_from="eight", share=1.5),
    StageSettings(name="anew", bits=2, activations=True, initialise_from="teacher"),
)
SETTINGS = TrainingSettings(
    steps=18, batch_size=8, learning_rate=2e-3, quantizer_learning_rate=1e-3, evaluate_every=3, save_every=2,
    log_every=2, stages=STAGES,
)  # fmt: skip


class StoppedError(Exception):
    pass


def begin_stage(student, stage):
    set_stage(student, bits=stage.bits, activations=stage.activations)


@pytest.fixture(scope="module")
def run(decoder, text, losses, plans):
    """Returns a function that starts or resumes the same run, and may stop it after some steps."""

    def start(out, *, stop_after=None, resume=True, method="module-scaling", settings=SETTINGS):
        teacher = decoder(1)
        student = decoder(1)
        make_trainable(student, plans(student, method=method))
        objective = losses(student, teacher, hidden=0.1, contrastive=0.1, contrastive_momentum=0.5,
                           contrastive_negatives=5)  # fmt: skip
        taken = []

        def stop(*_):
            taken.append(1)
            if len(taken) == stop_after:
                raise StoppedError

        train(
            student, teacher, data=text, settings=settings, objective=objective, out=out, resume=resume,
            begin_stage=begin_stage, progress=stop,
        )  # fmt: skip
        return student, len(taken)

    return start


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The undisturbed run: its student and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    student, steps = run(folder)
    assert steps == SETTINGS.steps
    return student, folder


def log_without_times(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same(first, second):
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("stop_after", [1, 4, 9, 13, 17])
def test_a_run_stopped_at_any_step_ends_the_same(run, whole, tmp_path, stop_after):
    undisturbed, folder = whole
    with pytest.raises(StoppedError):
        run(tmp_path / "run", stop_after=stop_after)
    resumed, left = run(tmp_path / "run")
    assert SETTINGS.steps - stop_after <= left <= SETTINGS.steps - stop_after + 2
    assert_same(undisturbed, resumed)
    assert log_without_times(tmp_path / "run") == log_without_times(folder)
    results = [json.loads((path / "result.json").read_text()) for path in (tmp_path / "run", folder)]
    assert results[0] == results[1]


def test_quantizers_that_look_at_the_optimizer_resume_the_same(run, tmp_path):
    undisturbed, _ = run(tmp_path / "whole", method="laq")
    with pytest.raises(StoppedError):
        run(tmp_path / "run", method="laq", stop_after=12)
    resumed, _ = run(tmp_path / "run", method="laq")
    assert_same(undisturbed, resumed)


def test_stopped_again_and_again(run, whole, tmp_path):
    for _ in range(9):
        try:
            resumed, _ = run(tmp_path / "run", stop_after=4)
            break
        except StoppedError:
            continue
    else:
        pytest.fail("the run makes no progress")
    assert_same(whole[0], resumed)


@pytest.mark.parametrize(("method_name", "count"), [("save_state", 1), ("save_state", 4), ("save_stage", 3)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_while_a_checkpoint_is_written(run, whole, tmp_path, monkeypatch, method_name, count, when):
    original = getattr(TrainingFolder, method_name)
    calls = []

    def interrupted(self, *args, **options):
        calls.append(1)
        if when == "after" or len(calls) != count:
            original(self, *args, **options)
        if len(calls) == count:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, method_name, interrupted)
        with pytest.raises(StoppedError):
            run(tmp_path / "run")
    resumed, _ = run(tmp_path / "run")
    assert_same(whole[0], resumed)


def test_a_perplexity_beyond_all_numbers_does_not_end_a_run(run, tmp_path, monkeypatch):
    """JSON has no infinity: it is null in every file of the run, which is read again."""
    infinite = Figures("perplexity", {"perplexity": math.inf, "loss": 900.0})
    monkeypatch.setattr("edgeq.training.stage.evaluate_model", lambda *_, **__: infinite)
    with pytest.raises(StoppedError):
        run(tmp_path / "run", stop_after=9)
    run(tmp_path / "run")
    assert read_json_object(tmp_path / "run" / "result.json")["values"] == {"perplexity": None, "loss": 900.0}


def test_a_finished_run_is_not_run_again(run, tmp_path):
    first, _ = run(tmp_path / "run")
    second, steps = run(tmp_path / "run")
    assert steps == 0
    assert_same(first, second)


def test_stages_start_where_they_say(whole):
    first = {}
    for line in log_without_times(whole[1]):
        if "loss" in line:
            first.setdefault(line["stage"], line["loss"])
    assert first["eight"] < first["two"]
    assert len(set(first.values())) == 4
    shown = {path.name for path in whole[1].iterdir()}
    assert {"stage-eight", "stage-two", "stage-again", "stage-anew", "state-18", "result.json"} <= shown
    assert len([name for name in shown if name.startswith("state-")]) == 1


def test_another_run_is_not_gone_on_with(run, tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path / "run", stop_after=2)
    other = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    with pytest.raises(UsageError, match=r"has another settings \(learning_rate: 0.002, not 0.001\)"):
        run(tmp_path / "run", settings=other)
    with pytest.raises(UsageError, match="resume it, or give another folder"):
        run(tmp_path / "run", resume=False)


def test_half_a_line_of_the_log_is_dropped(run, whole, tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path / "run", stop_after=7)
    with (tmp_path / "run" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 7, "lo')
    run(tmp_path / "run")
    assert log_without_times(tmp_path / "run") == log_without_times(whole[1])
