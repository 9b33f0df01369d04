"""The table of tasks, and the tables of other rooms that have a row for each of them."""

from typing import get_args

import pytest

from edgeq.cli.run_options import _TAKEN
from edgeq.evaluate.kinds import READERS
from edgeq.formats.tasks import GENERATING, PIPELINES, TASKS, task_of_class
from edgeq.models.adapter import Task as TaskName
from edgeq.parity.meaning.run import TASKS as MEANINGS
from edgeq.training.data import _TASKS as TRAINED

MEASURED = {*READERS, *GENERATING}
ASKED = set(_TAKEN) - {"rank"}


@pytest.mark.parametrize("known", [get_args(TaskName), MEANINGS, TRAINED, ASKED, MEASURED])
def test_every_task_has_a_row_in_every_room(known):
    assert set(known) == set(TASKS)


def test_names_of_transformers_lead_to_tasks():
    assert {name: PIPELINES[name].name for name in ("sentence-similarity", "ner", "text2text-generation")} == {
        "sentence-similarity": "embed",
        "ner": "tag",
        "text2text-generation": "seq2seq",
    }
    classes = {"BertModel": "embed", "GPT2LMHeadModel": "generate", "MarianMTModel": "seq2seq"}
    assert {name: task_of_class(name).name for name in classes} == classes
