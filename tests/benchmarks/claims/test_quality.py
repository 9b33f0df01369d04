"""The pictures of quality against bytes: rows become points, what diverged has none."""

import json

import pytest

from benchmarks.claims.quality import Point, markdown, picture, read_points
from edgeq.errors import FormatError


def run(task, size, **figures):
    return {"task": task, "stored_bytes": {"stored_bytes": size}, **figures}


@pytest.fixture
def results(tmp_path):
    """Two tables: one of sentences, one of text in which a row diverged."""
    tables = {
        "xtc": [("2 bits", [run("sst2", 6e6, accuracy=0.9), run("sst2", 6e6, accuracy=0.88)]), ("none yet", [])],
        "quantgpt": [
            ("8 bits", [run("wikitext2", 8e6, test=110.0)]),
            ("2 bits", [run("wikitext2", 2e6, test=2500.0)]),
            ("diverged", [{"task": "wikitext2", "failed": "the loss is nan"}]),
        ],
    }
    for name, rows in tables.items():
        content = {"rows": [{"label": label, "runs": runs} for label, runs in rows]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_rows_become_points_the_smallest_first(results):
    points = read_points(results)
    assert points["sst2"] == [Point("xtc", "2 bits", 2, pytest.approx(0.89), 6e6)]
    assert [point.label for point in points["wikitext2"]] == ["2 bits", "8 bits"]


def test_the_list_has_the_numbers_of_the_picture(results):
    points = read_points(results)["wikitext2"]
    text = markdown("wikitext2", points)
    assert "| 1 | quantgpt | 2 bits | 1 | 2.00 | 2500 |" in text
    drawn = picture("wikitext2", points)
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert ">1</text>" in drawn
    assert ">2</text>" in drawn
    assert drawn == picture("wikitext2", points)


def test_a_table_that_is_none_is_named(results):
    (results / "xtc.json").write_text('{"rows": 3}')
    with pytest.raises(FormatError, match=r"xtc\.json is not a table of claims"):
        read_points(results)
