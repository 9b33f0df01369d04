"""The pictures of quality against bytes: rows become points, what diverged has none."""

import dataclasses

import pytest

from benchmarks.claims.measure import teacher_name
from benchmarks.claims.quality import Point, markdown, picture, read_points
from benchmarks.claims.queue import RECORDS, TABLES
from benchmarks.claims.records import write_record
from benchmarks.factors.calls import STEP, TEXT
from edgeq.recipes import load_recipe


def record(claim, size, **figures):
    """What a finished run leaves, as far as pictures look at it."""
    base = {"teacher": "t", "base_sha256": load_recipe(claim.base).sha256, "revision": claim.until}
    return dataclasses.asdict(claim) | base | {"stored_bytes": {"stored_bytes": size}, **figures}


@pytest.fixture
def results(tmp_path):
    """Two tables: one of sentences, one of text in which a row diverged."""
    write_record(tmp_path / RECORDS, {"name": teacher_name("t"), "teacher": "t"})
    rows = {row.label: row.claims for name in ("xtc", "first-quantgpt") for row in TABLES[name](1.0).rows}
    for claim, accuracy in zip(rows["6 layers, 2 bits, budget C"], (0.9, 0.88), strict=False):
        write_record(tmp_path / RECORDS, record(claim, 6e6, accuracy=accuracy))
    write_record(tmp_path / RECORDS, record(rows["QuantGPT 8-8-8"][0], 8e6, test=110.0))
    write_record(tmp_path / RECORDS, record(rows["QuantGPT 2-2-8"][0], 2e6, test=2500.0))
    write_record(tmp_path / RECORDS, record(rows["PACT 2-2-8"][0], 2e6, failed="the loss is nan"))
    return tmp_path


def test_rows_become_points_the_smallest_first(results):
    points = read_points(results)
    names = ("sst2-l6-w2a8-C-1", "sst2-l6-w2a8-C-2")
    assert points["sst2"] == [Point("xtc", "6 layers, 2 bits, budget C", 2, pytest.approx(0.89), 6e6, names)]
    assert [point.label for point in points["wikitext2"]] == ["QuantGPT 2-2-8", "QuantGPT 8-8-8"]


def test_the_list_has_the_numbers_of_the_picture(results):
    points = read_points(results)["wikitext2"]
    text = markdown("wikitext2", points, {})
    assert "| 1 | first-quantgpt | QuantGPT 2-2-8 | 1 | 2.00 | 2500 |  |  |  |" in text
    drawn = picture("wikitext2", points)
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert ">1</text>" in drawn
    assert ">2</text>" in drawn
    assert drawn == picture("wikitext2", points)


def test_the_list_shows_what_was_measured_of_a_model(results):
    points = read_points(results)["wikitext2"]
    name = points[0].names[0]
    times = {TEXT: 12.345, STEP: 0.5}
    costs = {
        "setting": {"processor": "a processor", "threads": 1, "edgeq": "0.1", "commit": "abc"},
        "rounds": 8,
        "multiply_adds": {name: 123_000_000},
        "milliseconds": dict.fromkeys((name, "gpt2-wikitext2", "gpt2-wikitext2, ONNX Runtime"), times),
    }
    text = markdown("wikitext2", points, costs)
    assert "| 1 | first-quantgpt | QuantGPT 2-2-8 | 1 | 2.00 | 2500 | 123 | 12.35 | 0.50 |" in text
    assert "| 2 | first-quantgpt | QuantGPT 8-8-8 | 1 | 8.00 | 110 |  |  |  |" in text
    assert "edgeq's time those of the last." in text
    assert "- The float model, ONNX Runtime: 12.35 ms (text of 128 tokens), 0.50 ms (step after 128 tokens)." in text
