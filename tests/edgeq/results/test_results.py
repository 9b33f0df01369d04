"""Results of a run have one shape each, a version, and a published schema."""

import json
import math
from pathlib import Path

import pytest

from edgeq.errors import FormatError
from edgeq.formats.json_file import parse_json
from edgeq.json_text import json_text
from edgeq.results import FILES, OTHERS, Accuracy, Check, Conditions, Loss, ParityReport, Score, schema_of

ACCURACY = Accuracy(
    measured=True,
    metric="perplexity",
    unit="tokens",
    examples=4096,
    data="text.txt",
    stages={"torch float32": Score(20.0), "bundle host": Score(20.5)},
    losses={"bundle host": Loss(0.5, 0.1, 0.9, 0.98)},
    checks=(Check("bundle host", "task", True, "it agrees", {"relative": 1e-5}),),
)
PARITY = ParityReport((Check("tvm host", "isolated", False, "first encoder", {"values": 3}),), Conditions(texts=48))


BROKEN = Check("tvm host", "isolated", False, "no numbers", {"share": math.inf, "rms": math.nan, "layer": "first"})


def test_numbers_that_are_not_finite_are_null_and_read_back():
    """What a broken stage gives must not make the report of its breach unreadable."""
    report = ParityReport((BROKEN,))
    text = json_text(report.to_json())
    measured = parse_json(text, where="parity.json")["checks"][0]["measured"]
    assert measured == {"share": None, "rms": None, "layer": "first"}
    assert ParityReport.from_json(json.loads(text), Path("parity.json")) == report


@pytest.mark.parametrize("result", [ACCURACY, PARITY, Accuracy(measured=False, reason="no data")])
def test_what_is_written_is_read_back(result):
    table = json.loads(json.dumps(result.to_json()))
    assert type(result).from_json(table, Path("file.json")) == result
    assert set(table) >= {"format", "version"}


def test_all_accuracies_have_one_shape():
    assert ACCURACY.to_json().keys() == Accuracy(measured=False, reason="no data").to_json().keys()
    assert ACCURACY.reference == 20.0


def test_a_bundle_that_differs_on_the_data_breaks_parity():
    good = ParityReport((Check("tvm host", "isolated", True, "all"),))
    wrong = Accuracy(measured=True, checks=(Check("bundle host", "task", False, "it differs"),))
    assert good.with_data(ACCURACY.checks).passed
    assert good.with_data(wrong.checks).first_breach.stage == "bundle host"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "file.json should be edgeq-accuracy version 3, found 'edgeq-accuracy' version 1"),
        ({"stages": {"torch float32": {"value": "many"}}}, r"file.json is damaged \(stages.torch float32.value: "),
        ({"agreement": []}, r"file.json is damaged \(agreement: "),
    ],
)
def test_damaged_files_and_other_versions_are_one_sentence(change, message):
    with pytest.raises(FormatError, match=message):
        Accuracy.from_json(ACCURACY.to_json() | change, Path("file.json"))


def test_a_real_run_keeps_the_published_schemas(deployed):
    """Every file of a run has the fields that its schema demands, no others, and values of their types."""
    for name, kind in FILES.items():
        table = json.loads((deployed.folder / name).read_text())
        problems = list(_problems(table, schema_of(kind), schema_of(kind).get("$defs", {})))
        assert problems == [], name
        assert json.loads(json.dumps(kind.from_json(table, deployed.folder / name).to_json())) == table


def test_the_checker_of_schemas_finds_what_is_wrong():
    schema = schema_of(Accuracy)
    table = json.loads(json.dumps(ACCURACY.to_json()))
    for change in ({"examples": "many"}, {"more": 1}, {"unit": "pages"}, {"version": 0}, {"stages": {"x": {}}}):
        assert list(_problems(table | change, schema, schema["$defs"])), change


_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}


def _problems(value, schema, definitions, place="$"):
    """The parts of JSON Schema that pydantic writes; yields a line for each value that breaks one."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        if all(list(_problems(value, one, definitions, place)) for one in schema["anyOf"]):
            yield f"{place}: {value!r} is none of {schema['anyOf']}"
    elif "const" in schema or "enum" in schema:
        if value not in schema.get("enum", [schema.get("const")]):
            yield f"{place}: {value!r}"
    elif schema.get("type") == "object" and not isinstance(value, dict):
        yield f"{place}: {value!r} is no object"
    elif schema.get("type") == "object":
        fields, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        yield from (f"{place}: no {name}" for name in schema.get("required", []) if name not in value)
        for name, entry in value.items():
            if name in fields or isinstance(more, dict):
                yield from _problems(entry, fields.get(name, more), definitions, f"{place}.{name}")
            elif more is False:
                yield f"{place}: {name} is not in the schema"
    elif schema.get("type") == "array":
        for index, entry in enumerate(value):
            yield from _problems(entry, schema.get("items", {}), definitions, f"{place}[{index}]")
    elif "type" in schema:
        kind = _TYPES[schema["type"]]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            yield f"{place}: {value!r} is no {schema['type']}"


def test_every_schema_names_its_format():
    formats = set()
    for kind in (FILES | OTHERS).values():
        properties = schema_of(kind)["properties"]
        assert properties["version"]["const"] == kind.version
        formats.add(properties["format"]["const"])
    assert len(formats) == len(FILES | OTHERS)
