"""What a training left is read, drawn and told; a damaged training is a sentence."""

import json

import pytest

from edgeq.errors import FormatError
from edgeq.report import write_report
from edgeq.report.text import duration
from edgeq.report.training import read_training
from edgeq.results import TrainingRun


@pytest.fixture
def trained_run(results, write_run):
    """A run with a training of two stages, the second of which ended with its first evaluation's weights."""
    results["deploy"]["about"]["training"] = "training-0123"
    run = write_run(results)
    folder = run / "training-0123"
    settings = {"epochs": 2.0, "steps": None, "batch_size": 8, "learning_rate": 5e-5, "seed": 3, "select": "best"}
    stages = [
        {"name": "weights", "steps": 400, "metric": "accuracy", "values": {"accuracy": 0.75, "loss": 0.5}},
        {"name": "activations", "steps": 500, "metric": "accuracy", "values": {"accuracy": 0.85, "loss": 0.4}},
    ]
    result = {"format": "edgeq-training", "version": 1, "weights": "stage-activations/weights.safetensors",
              "steps": 900, "metric": "accuracy", "values": stages[1]["values"], "stages": stages}  # fmt: skip
    identity = TrainingRun("classification <b>", settings, {}, {}, 1, "ab", None)
    lines = [
        {"step": step, "stage": "weights" if step <= 400 else "activations", "loss": 1 / step, "seconds": float(step)}
        for step in range(1, 901)
    ]
    lines[99]["loss"] = None  # not a number
    for step, accuracy in ((400, 0.75), (600, 0.85), (900, 0.80)):
        stage = "weights" if step <= 400 else "activations"
        lines.append({"step": step, "stage": stage, "evaluation": {"accuracy": accuracy, "loss": None}})
    for name, step in (("weights", 400), ("activations", 600)):
        (folder / f"stage-{name}").mkdir(parents=True)
        (folder / f"stage-{name}" / "record.json").write_text(json.dumps({"step": step}))
    identity.write(folder / "run.json")
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_training_is_read_as_it_went(trained_run):
    found = read_training(trained_run / "training-0123")
    assert [stage.weights_of for stage in found.stages] == [400, 600]
    assert [stage.seconds for stage in found.stages] == [400.0, 900.0]
    assert found.settings == {"epochs": 2.0, "batch_size": 8, "learning_rate": 5e-5, "seed": 3, "select": "best"}
    assert [one.values["accuracy"] for one in found.evaluations] == [0.75, 0.85, 0.80]
    # 899 losses in groups of three, each the mean at the step of its last.
    assert len(found.loss) == 300
    assert found.loss[0] == (3, pytest.approx((1 + 1 / 2 + 1 / 3) / 3, rel=1e-5))
    assert 100 not in dict(found.loss)


def test_the_page_tells_of_the_training(trained_run):
    report = write_report(trained_run)
    page = (trained_run / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "<td>weights</td>" in page
    assert "accuracy 0.85, loss 0.4" in page
    assert "epochs 2.0, batch size 8, learning rate 5e-05, seed 3, select best" in page
    assert "classification &lt;b&gt;" in page
    assert report.training.steps == 900


def test_a_training_without_evaluation_has_its_loss_alone(trained_run):
    file = trained_run / "training-0123" / "result.json"
    values = json.loads(file.read_text())
    for part in (values, *values["stages"]):
        part |= {"metric": None, "values": {}}
    file.write_text(json.dumps(values))
    write_report(trained_run)
    assert "training loss" in (trained_run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", None, r"log\.jsonl is missing"),
        ("log.jsonl", "{", r"log\.jsonl, line 1, is damaged"),
        ("log.jsonl", "[]", "one per line"),
        ("result.json", "{}", r"result\.json should be edgeq-training version 1"),
        ("run.json", "3", "should hold a JSON object"),
    ],
)
def test_a_damaged_training_is_a_sentence(trained_run, name, content, message):
    file = trained_run / "training-0123" / name
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(FormatError, match=message):
        write_report(trained_run)


def test_long_times_are_readable():
    assert [duration(each) for each in (7.4, 61, 3599.6, 9000)] == ["7 s", "1 min 1 s", "1 h 0 min", "2 h 30 min"]
