"""One real run of the main job on a tiny model, shared by the tests that look at its results."""


import pytest

EVALUATION = """sentence1\tsentence2\tscore
the cat sat\ta cat sat\t4.5
the dog jumps over\tthe quick brown fox\t1.0
good movie\ta good movie\t5.0
word1 word2\tword60 word61 word62\t0.0
lazy dog\tthe lazy dog\t4.0
quick fox\tlazy cat\t1.5
"""


@pytest.fixture(scope="session")
def evaluation_file(make_once):
    """A small similarity set made of words that the tiny tokenizer knows."""
    return make_once("evaluation", lambda folder: (folder / "pairs.tsv").write_text(EVALUATION)) / "pairs.tsv"


@pytest.fixture(scope="session")
def run_options(evaluation_file):
    """Options of the shared run, for calling deploy on it again."""
    return {
        "recipe": "ptq-w4a8", "targets": ["host"], "eval_data": evaluation_file, "rounds": 6, "sequence": 16,
        "name": "tiny bert",
    }  # fmt: skip


@pytest.fixture(scope="session")
def deployed(float_checkpoint, make_once, run_options):
    """The tiny BERT deployed for this machine; do not change its folder."""
    from edgeq.deploy import DeployResult, deploy
    from edgeq.results import Report

    folder = make_once("deployed", lambda folder: deploy(float_checkpoint, folder / "run", **run_options)) / "run"
    return DeployResult(folder, Report.read(folder / "report.json"), [])
