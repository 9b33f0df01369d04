"""The arithmetic and the table of the benchmark of real models."""

import numpy as np
import pytest

from benchmarks.models.__main__ import neighbours_kept
from benchmarks.models.catalog import MODELS, reactions, sentences
from benchmarks.models.table import table_lines, update_readme

WORKS = {
    "model": "m", "recipe": "r", "works": True, "parity": True, "bytes": 10**6, "float_bytes": 4 * 10**6, "texts": 7,
    "seconds": 12.3, "peak_bytes": 10**7, "metric": "spearman", "value": 0.5, "float_value": 0.6, "cosine": 0.99,
    "least_cosine": 0.9, "neighbours": 0.75,
}  # fmt: skip


def test_neighbours_that_are_kept():
    floats = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert neighbours_kept(floats, 3 * floats) == 1.0
    assert neighbours_kept(floats, floats[[0, 2, 1, 3]]) == 0.0
    assert neighbours_kept(floats, np.array([[1.0, 0.0], [1.0, 0.1], [0.9, 0.2], [0.0, 1.0]])) == pytest.approx(0.75)


def test_the_table(tmp_path):
    refused = {"model": "x", "recipe": "r", "works": False, "reason": "no weights"}
    lines = table_lines([WORKS, refused])
    assert lines[2] == (
        "| m | `r` | yes | 1.00 MB | 4.00x | spearman 0.5000 of 0.6000 | 0.9900 (least 0.9000) | 75.0% of 7 | 12 | "
        "10.00 MB (2.5 times float32) |"
    )
    assert lines[3].startswith("| x | `r` | no: no weights |")
    assert {line.count("|") for line in lines} == {11}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- models: begin -->\nold\n<!-- models: end -->\nafter\n")
    update_readme(page, [WORKS])
    table = "\n".join(lines[:3])
    assert page.read_text() == f"before\n<!-- models: begin -->\n{table}\n<!-- models: end -->\nafter\n"


def test_every_model_has_texts():
    assert len({model.name for model in MODELS}) == len(MODELS)
    for texts in (sentences(), reactions()):
        assert len(set(texts)) == len(texts) >= 100
