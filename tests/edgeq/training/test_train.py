"""Runs of small models: they learn, and what they leave on disk is what a later run needs."""

import copy
import dataclasses
import json
import math
import os

import numpy as np
import pytest
import torch

import edgeq.training.stage
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.training import StageSettings, TrainingSettings, start_from, train
from edgeq.training.tensors import load_tensors, save_tensors

ON_LABELS = {"logits": 0, "labels": 1}


def settings(**changes):
    values = {"steps": 12, "batch_size": 8, "evaluate_every": 4, "log_every": 3, "learning_rate": 1e-3}
    return TrainingSettings(**values | changes)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_classifier_learns_from_labels(classifier, labelled, losses, tmp_path):
    student = classifier()
    outcome = train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
        settings=settings(epochs=12, steps=None, learning_rate=3e-3, evaluate_every=None, dropout=False),
    )  # fmt: skip
    assert outcome.result.metric == "accuracy"
    assert outcome.result.values["accuracy"] > 0.9
    assert outcome.result.steps == 12 * 11


def test_a_student_follows_its_teacher(decoder, text, losses, tmp_path):
    teacher, student = decoder(1), decoder(2)
    before = weights_of(teacher)
    objective = losses(student, teacher, hidden=1, attention=1, contrastive=0.1)
    train(
        student, teacher, data=text, objective=objective, out=tmp_path / "run",
        settings=settings(steps=60, learning_rate=3e-3, evaluate_every=60),
    )  # fmt: skip
    lines = [line for line in log_of(tmp_path / "run") if "loss" in line]
    for name in ("loss", "logits", "hidden", "attention", "contrastive"):
        assert lines[-1][name] < lines[0][name], name
    assert_same(before, weights_of(teacher))


def test_the_log_has_every_step_interval_and_evaluation(classifier, labelled, losses, tmp_path):
    student = classifier()
    seen = []
    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), settings=settings(),
        out=tmp_path / "run", progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if "evaluation" in line] == [4, 8, 12]
    assert all(line["stage"] == "train" for line in lines)
    assert seen[0] == ("training (train)", 1, 12)
    assert seen[-1] == ("training (train)", 12, 12)


def test_the_student_ends_with_its_best_weights(classifier, labelled, losses, tmp_path):
    student = classifier()
    outcome = train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
        settings=settings(steps=40, learning_rate=5e-3, evaluate_every=5, dropout=False, schedule="constant"),
    )  # fmt: skip
    evaluations = [line["evaluation"]["accuracy"] for line in log_of(tmp_path / "run") if "evaluation" in line]
    assert outcome.result.values["accuracy"] == max(evaluations)
    other = classifier(9)
    start_from(other, tmp_path / "run")
    assert_same(weights_of(student), weights_of(other))


HALVES = (StageSettings(name="one", share=0.5), StageSettings(name="two", share=0.5))
ONE_RUN = {"across_stages": "continue", "shuffle": "run", "dropout": False, "select": "last", "weight_decay": 0.1}


def test_stages_that_continue_are_one_training(classifier, labelled, losses, tmp_path):
    results = {}
    for name, changes in {
        "whole": ONE_RUN,
        "halves": {**ONE_RUN, "stages": HALVES},
        "restarted": {**ONE_RUN, "stages": HALVES, "across_stages": "restart"},
        "reshuffled": {**ONE_RUN, "stages": HALVES, "shuffle": "stage"},
    }.items():
        student = classifier()
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / name,
            settings=settings(steps=14, warmup=0.2, **changes),
        )  # fmt: skip
        results[name] = weights_of(student)
    assert_same(results["whole"], results["halves"])
    for other in ("restarted", "reshuffled"):
        assert not torch.equal(results["whole"]["classifier.weight"], results[other]["classifier.weight"])
    # Killed between the stages, the optimizer's averages come back too.
    resumed = classifier()
    with pytest.raises(KeyboardInterrupt):
        _train_halves(classifier(), labelled, losses, tmp_path / "cut", stop=("training (one)", 7))
    _train_halves(resumed, labelled, losses, tmp_path / "cut", resume=True)
    assert_same(results["whole"], weights_of(resumed))


def _train_halves(student, labelled, losses, out, *, stop=None, resume=False):
    def interrupt(what, done, total):
        if (what, done) == stop:
            raise KeyboardInterrupt

    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=out, resume=resume,
        settings=settings(steps=14, warmup=0.2, stages=HALVES, **ONE_RUN), progress=interrupt,
    )  # fmt: skip


def test_a_stage_has_a_schedule_of_its_own(classifier, labelled, losses, tmp_path):
    student = classifier()
    flat = dataclasses.replace(HALVES[0], schedule="constant", warmup=0.0)
    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
        settings=settings(steps=12, learning_rate=1e-3, log_every=1, warmup=0.5, stages=(flat, HALVES[1])),
    )  # fmt: skip
    rates = {stage.name: [line["learning_rate"] for line in log_of(tmp_path / "run")
                          if "loss" in line and line["stage"] == stage.name] for stage in HALVES}  # fmt: skip
    assert rates["one"] == [1e-3] * 6
    assert rates["two"][:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates["two"][-1] < 0.5e-3
    with pytest.raises(UsageError, match="stage 'one' has a schedule or warm-up of its own"):
        settings(steps=12, across_stages="continue", stages=(flat, HALVES[1]))


def test_the_last_weights_on_request(classifier, labelled, losses, tmp_path):
    results = {}
    for select in ("best", "last"):
        student = classifier()
        out = tmp_path / select
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=out,
            settings=settings(steps=20, learning_rate=0.02, evaluate_every=2, select=select),
        )  # fmt: skip
        results[select] = weights_of(student)
        state = next(out.glob("state-*"))
        fresh = classifier(5)
        start_from(fresh, state)
        if select == "last":
            assert_same(weights_of(fresh), results["last"])
    assert not torch.equal(results["best"]["classifier.weight"], results["last"]["classifier.weight"])


def test_same_seed_same_weights(classifier, labelled, losses, tmp_path):
    results = []
    for index, seed in enumerate((3, 3, 4)):
        student = classifier()
        torch.manual_seed(index)  # whatever was drawn before does not matter
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / str(index),
            settings=settings(seed=seed, select="last"),
        )  # fmt: skip
        results.append(weights_of(student))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["classifier.weight"], results[2]["classifier.weight"])


def test_pieces_of_a_batch_sum_to_the_batch(classifier, labelled, losses, tmp_path):
    results = []
    for accumulate in (1, 3):
        student = classifier()
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / str(accumulate),
            settings=settings(steps=3, accumulate=accumulate, dropout=False, select="last"),
        )  # fmt: skip
        results.append(weights_of(student))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=2e-4)


def test_bfloat16_products_leave_weights_in_float32(classifier, labelled, losses, tmp_path, monkeypatch):
    monkeypatch.setattr(edgeq.training.stage, "multiplies_bfloat16", lambda device: True)
    student, teacher = classifier(), classifier(1)
    outcome = train(
        student, teacher, data=labelled, objective=losses(student, teacher, hidden=1, attention=1),
        out=tmp_path / "run", settings=settings(bf16=True, steps=4),
    )  # fmt: skip
    assert all(value.dtype == torch.float32 for value in student.parameters())
    assert math.isfinite(outcome.result.values["loss"])


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_is_left_to_processors_that_multiply_it(
    classifier, labelled, losses, tmp_path, monkeypatch, has_instructions
):
    monkeypatch.setattr(edgeq.training.stage, "multiplies_bfloat16", lambda device: has_instructions)
    weights = []
    for bf16 in (True, False):
        student = classifier()
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / str(bf16),
            settings=settings(bf16=bf16, steps=2),
        )  # fmt: skip
        weights.append(weights_of(student))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items()) is not has_instructions


def test_dropout_is_back_after_a_run_without(classifier, labelled, losses, tmp_path):
    student = classifier()
    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
        settings=settings(dropout=False, steps=2),
    )  # fmt: skip
    assert student.bert.embeddings.dropout.p == 0.1


def test_a_loss_that_is_no_number_names_step_and_checkpoint(classifier, labelled, losses, tmp_path):
    student = classifier()
    with torch.no_grad():
        student.bert.embeddings.word_embeddings.weight[7, 3] = math.nan
    with pytest.raises(EdgeqError, match=r"stopped at step 1 .*there is no checkpoint yet"):
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
            settings=settings(),
        )  # fmt: skip
    student = classifier()
    calls = []

    def poison(_, done, __):
        calls.append(done)
        if done == 6:
            with torch.no_grad():
                student.classifier.weight[0, 0] = math.inf

    with pytest.raises(EdgeqError, match=r"stopped at step 7 .*state-4"):
        train(
            student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "other",
            settings=settings(), progress=poison,
        )  # fmt: skip
    assert calls[-1] == 6


def test_without_evaluation_the_last_weights_count(classifier, labelled, losses, tmp_path):
    student = classifier()
    data = type(labelled)("classification", labelled.train)
    outcome = train(
        student, None, data=data, objective=losses(student, **ON_LABELS), settings=settings(), out=tmp_path / "run"
    )
    assert (outcome.result.metric, outcome.result.values) == (None, {})
    assert outcome.weights.is_file()


def test_distillation_needs_a_teacher(classifier, labelled, losses, tmp_path):
    student = classifier()
    objective = losses(student, classifier(1))
    with pytest.raises(UsageError, match="needs a teacher"):
        train(student, None, data=labelled, objective=objective, settings=settings(), out=tmp_path / "run")


def test_objectives_by_stage(classifier, labelled, losses, tmp_path):
    student, teacher = classifier(), classifier(1)
    stages = (StageSettings(name="layers"), StageSettings(name="answers", share=2.0, learning_rate=1e-4))
    objectives = {
        "layers": losses(student, teacher, logits=0, hidden=1),
        "answers": losses(student, teacher, logits=1),
    }
    outcome = train(
        student, teacher, data=labelled, objective=objectives, settings=settings(stages=stages), out=tmp_path / "run"
    )
    assert [(stage.name, stage.steps) for stage in outcome.result.stages] == [("layers", 4), ("answers", 8)]
    lines = [line for line in log_of(tmp_path / "run") if "loss" in line]
    assert {"hidden"} <= lines[0].keys()
    assert "hidden" not in lines[-1]
    assert max(line["learning_rate"] for line in lines if line["stage"] == "answers") <= 1e-4
    with pytest.raises(UsageError, match="objectives are for the stages layers"):
        train(
            student, teacher, data=labelled, objective={"layers": objectives["layers"]}, out=tmp_path / "other",
            settings=settings(stages=stages),
        )  # fmt: skip


def test_augmented_examples_are_read_in_their_stage(classifier, labelled, losses, tmp_path):
    student = classifier()
    stage = StageSettings(augmented=True)
    options = {"objective": losses(student, **ON_LABELS), "settings": settings(epochs=1, steps=None, stages=(stage,))}
    with pytest.raises(UsageError, match="none were made"):
        train(student, None, data=labelled, out=tmp_path / "a", **options)
    more = type(labelled)("classification", labelled.train, labelled.evaluation, labelled.train)
    outcome = train(student, None, data=more, out=tmp_path / "b", **options)
    assert outcome.result.steps == 180 // 8


def test_batches_too_small_for_their_pieces(classifier, labelled, losses, tmp_path):
    student = classifier()
    few = type(labelled)("classification", type(labelled.train)(
        labelled.train.inputs[:2], 0, labelled.train.types[:2], np.array([0, 1])))  # fmt: skip
    with pytest.raises(UsageError, match="a batch has 2 examples, too few for 1 processes and 3 pieces"):
        train(
            student, None, data=few, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
            settings=settings(accumulate=3),
        )  # fmt: skip


def test_folders_of_something_else_are_left_alone(classifier, labelled, losses, tmp_path):
    student = classifier()
    (tmp_path / "mine.txt").write_text("keep")
    options = {"data": labelled, "objective": losses(student, **ON_LABELS), "settings": settings(steps=2)}
    with pytest.raises(UsageError, match="holds something else"):
        train(student, None, out=tmp_path, **options)
    train(copy.deepcopy(student), None, out=tmp_path / "run", **options)
    with pytest.raises(UsageError, match="resume it"):
        train(copy.deepcopy(student), None, out=tmp_path / "run", **options)


def test_what_a_killed_training_leaves_is_no_folder_of_something_else(classifier, labelled, losses, tmp_path):
    student, run = classifier(), tmp_path / "run"
    run.mkdir()
    (run / ".run.json.k1ll3d__").touch()
    options = {"data": labelled, "objective": losses(student, **ON_LABELS), "settings": settings(steps=2)}
    train(copy.deepcopy(student), None, out=run, **options)
    for name in (".state-1.k1ll3d__.partial", ".stage-only.k1ll3d__.partial", ".mine.k1ll3d__.partial"):
        (run / name).mkdir()
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text() + "[" * 9999 + "\n" + "7" * 6000 + "\n{")
    train(copy.deepcopy(student), None, out=run, resume=True, **options)
    assert [path.name for path in run.glob(".*.partial")] == [".mine.k1ll3d__.partial"]
    (run / "log.jsonl").unlink()
    os.mkfifo(run / "log.jsonl")
    with pytest.raises(FormatError, match=r"log\.jsonl should be a file, found a named pipe"):
        train(copy.deepcopy(student), None, out=run, resume=True, **options)


def test_damaged_and_foreign_checkpoints(classifier, labelled, losses, tmp_path):
    student = classifier()
    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), settings=settings(steps=2),
        out=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"is of another model: 'bert\.embeddings"):
        start_from(classifier(hidden_size=48), tmp_path / "run")
    with pytest.raises(UsageError, match="is no training checkpoint"):
        start_from(student, tmp_path)
    file = tmp_path / "run" / "stage-train" / "weights.safetensors"
    entries = load_tensors(file)
    entries["classifier.bias"][0] = float("nan")
    save_tensors(file, entries)
    with pytest.raises(FormatError, match=r"'classifier\.bias' holds 1 of 2 values that are NaN"):
        start_from(student, tmp_path / "run")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match="is damaged"):
        start_from(student, tmp_path / "run")


def test_long_epochs_are_saved_by_the_clock(classifier, labelled, losses, tmp_path, monkeypatch):
    student = classifier()
    monkeypatch.setattr("edgeq.training.stage._SECONDS_BETWEEN_STATES", -1.0)
    seen = []
    train(
        student, None, data=labelled, objective=losses(student, **ON_LABELS), out=tmp_path / "run",
        settings=settings(evaluate_every=100, steps=3),
        progress=lambda *_: seen.append(sorted(path.name for path in (tmp_path / "run").glob("state-*"))),
    )  # fmt: skip
    assert seen == [["state-1"], ["state-2"], ["state-3"]]
