"""``edgeq compress`` with a recipe that trains."""

import json

import pytest

import edgeq.cli.main as cli


@pytest.fixture
def run(capsys):
    """Returns a function that runs the command line and returns exit code, stdout and stderr."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def classifier(make_bert):
    return make_bert("BertForSequenceClassification", seed=11)


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.tsv"
    file.write_text("sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 8)
    return file


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text("extends = 'xtc-l3-w2a8'\nname = 'tiny'\n[layers]\nkeep = [0]\n[training]\nbatch_size = 8\n")
    return file


def _sentence(err):
    lines = [line for line in err.strip().splitlines() if line.startswith("edgeq: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_a_training_recipe(run, classifier, recipe, data, tmp_path):
    out = tmp_path / "out"
    options = ("--train-data", data, "--eval-data", data, "--epochs", 1, "--seed", 3, "--task", "text-classification")
    code, printed, _ = run("compress", classifier, out, "--recipe", recipe, *options, "--json")
    assert code == 0
    training = json.loads(printed)["training"]
    assert (training["steps"], training["metric"]) == (2, "accuracy")
    assert training["folder"] == f"{out}-training"
    assert (out / "model.safetensors").is_file()
    code, _, err = run("compress", classifier, out, "--recipe", recipe, *options)
    assert code == 2
    assert "resume" in _sentence(err)
    code, printed, _ = run("compress", classifier, out, "--recipe", recipe, *options, "--resume")
    assert code == 0
    assert "trained for 2 steps: accuracy" in printed


def test_a_folder_and_a_teacher_of_ones_own(run, classifier, recipe, data, tmp_path):
    options = ("--train-data", data, "--epochs", 1, "--teacher", classifier, "--training-folder", tmp_path / "run")
    code, _, _ = run("compress", classifier, tmp_path / "out", "--recipe", recipe, *options)
    assert code == 0
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --train-data"),
        (["--epochs", "1"], "--epochs is for training, which needs data"),
        (["--resume"], "--resume is for training"),
        (["--train-data", "nowhere.tsv"], "nowhere.tsv"),
        (["--train-data", "DATA", "--task", "classification"], "did you mean 'text-classification'"),
        (["--train-data", "DATA", "--task", "nonsense"], "no task 'nonsense'"),
        (["--train-data", "DATA", "--budget", "Z"], "no budget 'Z'"),
        (["--train-data", "DATA", "--epochs", "-1"], "epochs should be above 0"),
        (["--train-data", "DATA", "--teacher", "./nowhere"], "no folder './nowhere'"),
    ],
)
def test_one_sentence_and_exit_code_2(run, classifier, recipe, data, tmp_path, options, message):
    words = [str(data) if word == "DATA" else word for word in options]
    code, _, err = run("compress", classifier, tmp_path / "out", "--recipe", recipe, *words)
    assert code == 2
    assert message in _sentence(err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("sentence\tlabel\n", "no examples"),
        ("words\tlabel\na\t1\n", "should have columns"),
        ("sentence\tlabel\na good movie\t7\n", "label '7'"),
    ],
)
def test_data_that_cannot_be_trained_on(run, classifier, recipe, tmp_path, content, message):
    file = tmp_path / "bad.tsv"
    file.write_text(content)
    code, _, err = run("compress", classifier, tmp_path / "out", "-r", recipe, "--train-data", file)
    assert code == 2
    assert message in _sentence(err)
    assert "bad.tsv" in err


def test_a_recipe_without_training_refuses_data(run, classifier, data, tmp_path):
    code, _, err = run("compress", classifier, tmp_path / "out", "-r", "ptq-w8a8", "--train-data", data)
    assert code == 2
    assert "does not train" in _sentence(err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --train-data"),
        (["--seed", "1"], "--seed is for training"),
        (["--train-data", "DATA", "--eval-data", "nowhere.tsv"], "nowhere.tsv does not exist"),
    ],
)
def test_deploy_asks_for_what_a_training_needs(run, classifier, recipe, data, tmp_path, options, message):
    words = [str(data) if word == "DATA" else word for word in options]
    code, _, err = run("deploy", classifier, tmp_path / "run", "--sequence", 16, "-r", recipe, *words)
    assert code == 2
    assert message in _sentence(err)
    assert not (tmp_path / "run").exists()
