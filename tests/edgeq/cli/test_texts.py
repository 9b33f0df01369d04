"""Texts from files: lines, JSON objects and tables; what belongs to a text comes back with its result."""

import dataclasses
import io
import sys
from pathlib import Path

import pytest

from edgeq.cli.texts import InputText, join_results, read_json_lines, read_lines, read_table
from edgeq.errors import EdgeqError


@dataclasses.dataclass
class Said:
    """Stands for the result of a model."""

    text: str

    def to_json(self):
        return {"text": self.text, "tokens": len(self.text.split())}


def _file(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_blank_lines_keep_their_place(tmp_path):
    inputs = read_lines(_file(tmp_path, "a.txt", "\ufeffa cat\r\n\n \t\nthe\u2028dog\n"))
    assert [one.text for one in inputs] == ["a cat", "", "", "the\u2028dog"]
    joined = list(join_results(inputs, [Said(one.text) for one in inputs if one.text]))
    assert [one["text"] for one in joined] == ["a cat", "", "", "the\u2028dog"]
    assert joined[1] == {"text": "", "tokens": 0}
    assert joined[3]["tokens"] == 2


def test_json_lines_keep_ids_and_fields(tmp_path):
    rows = '{"id": 7, "text": "a cat", "label": "x"}\n\n{"id": null, "text": null}\n{"id": "b", "text": "dog"}\n'
    inputs = read_json_lines(_file(tmp_path, "a.jsonl", rows), None)
    assert inputs == [InputText("a cat", 7, {"label": "x"}), InputText(""), InputText("dog", "b")]
    joined = list(join_results(inputs, [Said("a cat"), Said("dog")]))
    assert joined == [
        {"id": 7, "text": "a cat", "tokens": 2, "fields": {"label": "x"}},
        {"text": "", "tokens": 0},
        {"id": "b", "text": "dog", "tokens": 1},
    ]


@pytest.mark.parametrize(("name", "gap"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_keep_ids_and_columns(tmp_path, name, gap):
    rows = f"id{gap}body{gap}year\n1{gap}a cat{gap}1999\n2{gap}{gap}2000\n"
    inputs = read_table(_file(tmp_path, name, rows), "body")
    assert inputs == [InputText("a cat", "1", {"year": "1999"}), InputText("", "2", {"year": "2000"})]
    quoted = read_table(_file(tmp_path, "q.csv", 'sentence\n"a, ""b""\nc"\n'), None)
    assert quoted == [InputText('a, "b"\nc')]


def test_standard_input(monkeypatch):
    for read, content, text in (
        (read_lines, "a cat\n", "a cat"),
        (lambda name: read_json_lines(name, None), '{"text": "a dog"}', "a dog"),
        (lambda name: read_table(name, None), "text\na fox\n", "a fox"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert [one.text for one in read("-")] == [text]


@pytest.mark.parametrize(
    ("name", "content", "column", "reason"),
    [
        ("a.jsonl", "[1]\n", None, "line 1, should hold a JSON object, found a list"),
        ("a.jsonl", '{"text": 3}\n', None, "'text' should be a text, found 3"),
        ("a.jsonl", '{"body": "a"}\n', None, "name the texts by --column; there are body"),
        ("a.jsonl", '{"text": "a", "sentence": "b"}\n', None, "of which text and sentence could be meant"),
        ("a.jsonl", '{"body": "a"}\n{"text": "a"}\n', "body", "line 2, has no 'body', found text"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', None, "key 'text' twice"),
        ("a.jsonl", "\n", None, "holds no texts"),
        ("a.csv", "text,year\na\n", None, "row 2, should have 2 columns, found 1"),
        ("a.csv", 'text\n"a\n', None, "is not a CSV file"),
        ("a.csv", "text,id,text\na,1,b\n", None, "has two columns 'text'"),
        ("a.tsv", "id\tid\n1\t2\n", "id", "has two columns 'id'"),
        ("a.csv", "", None, "holds no texts"),
    ],
)
def test_wrong_files_are_a_sentence(tmp_path, name, content, column, reason):
    read = read_json_lines if name.endswith(".jsonl") else read_table
    with pytest.raises(EdgeqError) as caught:
        read(_file(tmp_path, name, content), column)
    assert reason in str(caught.value)
    assert name in str(caught.value)
