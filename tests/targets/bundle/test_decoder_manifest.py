"""Manifests of decoders: what does not fit is a sentence before anything is mapped or run."""

import copy
import json
import random

import pytest

from edgeq.errors import EdgeqError, FormatError
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.manifest_parser import parse_manifest
from tests.targets.changed_manifests import damage, set_value


@pytest.fixture
def table(gpt2_bundle):
    return json.loads((gpt2_bundle / "manifest.json").read_text())


def test_writing_and_reading_give_the_same_manifest(gpt2_bundle):
    manifest = read_manifest(gpt2_bundle)
    assert parse_manifest(json.loads(manifest.to_json())) == manifest
    assert [run.function for run in manifest.golden] == ["main"] * 7


WRONG = [
    (("generation",), 3, "must be a table"),
    (("generation",), None, "do not belong together"),
    (("generation", "context"), 0, "at least 1"),
    (("generation", "context"), 149, "'max_length' must be the context 149"),
    (("generation", "end_ids"), ["x"], "'end_ids' must be a list of integers"),
    (("generation", "end_ids"), [283], r"'end_ids' must lie in 0\.\.282"),
    (("functions", "main", "state"), [], "'state' is empty"),
    (("functions", "main", "state", 0, "dtype"), "int32", "must be floats or int8"),
    (("functions", "main", "state", 0, "shape"), [1, 3], "must be floats"),
    (("functions", "main", "state", 0, "shape", 2), "sequence", "must be floats"),
    (("functions", "main", "state", 1, "shape", 1), 1 << 39, "which no machine has"),
    (("functions", "main", "inputs", 0, "maximum"), 283, r"ids of a decoder must lie in 0\.\.282"),
    (("functions", "main", "inputs", 0, "dtype"), "int32", "golden tensor 'input_ids' has another type"),
    (("functions", "main", "outputs", 0, "shape", 0), 2, "the output of a decoder"),
    (("model", "task"), "embed", "do not belong together"),
    (("model", "max_length"), None, "'max_length' must be"),
    (("golden",), 3, "must be a list"),
    (("golden", 3, "inputs"), [], "'golden' does not hold the function's inputs"),
    (("golden", 3, "inputs", 0, "offset"), 1 << 40, "ends at byte"),
    (("golden", 3, "outputs", 0, "name"), "scores", "'golden' does not hold"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_a_sentence(table, path, value, message):
    set_value(table, path, value)
    with pytest.raises(FormatError, match=message):
        parse_manifest(table)


def test_inputs_of_another_interface_are_refused(table):
    table["functions"]["main"]["inputs"][1]["name"] = "lengths"
    for run in table["golden"]:
        run["inputs"][1]["name"] = "lengths"
    with pytest.raises(FormatError, match="the inputs of a decoder are input_ids, past_lengths, new_lengths"):
        parse_manifest(table)


def test_a_state_belongs_to_models_that_make_text(table):
    table["model"]["task"] = "embed"
    table["generation"] = None
    with pytest.raises(FormatError, match="a state belong to models that generate text"):
        parse_manifest(table)


def test_random_damage_never_escapes_as_another_error(table):
    chance = random.Random(6)  # noqa: S311
    refused = 0
    for _ in range(300):
        damaged = copy.deepcopy(table)
        damage(damaged, chance, first=["generation", "golden", "functions", "model"], deeper=0.85)
        try:
            parse_manifest(damaged)
        except EdgeqError:
            refused += 1
    assert refused > 200
