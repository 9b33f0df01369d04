"""``deploy`` with a recipe that trains: one folder from float model to report, interrupted and finished."""

import dataclasses
import json

import pytest

from edgeq.deploy import deploy
from edgeq.deploy.training import placed, training_parameters
from edgeq.errors import UsageError
from edgeq.recipes import TrainingRequest


@pytest.fixture(scope="module")
def classifier(make_bert):
    return make_bert("BertForSequenceClassification", seed=13)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "data.tsv"
    file.write_text("sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 12)
    return file


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text("extends = 'xtc-l3-w1a8'\nname = 'tiny'\n[layers]\nkeep = [1]\n[training]\nbatch_size = 8\n")
    return file


@pytest.mark.slow
def test_a_run_goes_on_inside_its_training_and_ends_with_a_report(classifier, recipe, data, tmp_path):
    request = TrainingRequest(train_data=data, eval_data=data, epochs=2)
    options = {"recipe": recipe, "training": request, "eval_data": data, "rounds": 4, "sequence": 16}

    def interrupt(what, done, _total):
        if "training" in what and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(classifier, tmp_path / "run", progress=interrupt, **options)
    result = deploy(classifier, tmp_path / "run", **options)
    assert result.passed
    assert "compress" in result.ran
    trainings = list((tmp_path / "run").glob("training-*/result.json"))
    assert len(trainings) == 1
    accuracy = json.loads((tmp_path / "run" / "accuracy.json").read_text())
    assert accuracy["measured"]
    assert result.report.training.folder == trainings[0].parent.name
    assert result.report.training.evaluations
    trained = json.loads(trainings[0].read_text())["values"]["accuracy"]
    measured = accuracy["stages"]["torch compressed"]["value"]
    assert abs(measured - trained) <= 2 / 24  # what was trained is what was packed, but for rounding edges
    assert deploy(classifier, tmp_path / "run", **options).ran == []


def test_another_training_gets_another_folder(data, tmp_path):
    first = TrainingRequest(train_data=data, epochs=2)
    same = TrainingRequest(train_data=str(data), epochs=2, folder="elsewhere")
    others = [dataclasses.replace(first, **change) for change in ({"epochs": 1}, {"seed": 3}, {"eval_data": data})]
    copy = tmp_path / "copy.tsv"
    copy.write_text(data.read_text() + "a cat\t1\n")
    others.append(dataclasses.replace(first, train_data=copy))
    parameters = [training_parameters(request) for request in (first, same, *others)]
    assert parameters[0] == parameters[1]
    folders = [placed(first, tmp_path, parameters=entry).folder for entry in parameters]
    assert len(set(folders)) == 1 + len(others)
    assert placed(first, tmp_path, parameters=parameters[0]).resume
    assert training_parameters(None) == {}
    assert placed(None, tmp_path, parameters={}) is None


def test_a_recipe_that_trains_asks_for_data_before_anything_is_written(classifier, recipe, tmp_path):
    with pytest.raises(UsageError, match="give --train-data"):
        deploy(classifier, tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()
