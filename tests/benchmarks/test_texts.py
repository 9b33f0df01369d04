"""The comparison of engines by texts a second: grouping, the texts, and what is kept of a round."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.speed.turns import ENGINES
from benchmarks.texts.__main__ import _result, _Row
from benchmarks.texts.workloads import WORKLOADS, texts_of

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "texts" / "engines" / "text_turns.py"


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that engines import from their own folder."""
    monkeypatch.syspath_prepend(str(ENGINES))
    spec = importlib.util.spec_from_file_location("text_turns", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"?": 0} | {f"w{n}": n for n in range(1, 9)}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_grouped_texts_come_back_in_their_order(turns: ModuleType) -> None:
    seen: list[list[int]] = []
    table = np.random.default_rng(0).normal(size=(9, 4))

    def run(rows: list[list[int]]) -> np.ndarray:
        seen.append([len(row) for row in rows])
        ids, mask = turns.padded(rows)
        assert mask.sum() == sum(map(len, rows))
        return table[ids]

    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w1", "w2 w3", "w8 w8 w8 w8 w8 w8 w8"]
    found = turns.grouped(_tokenizer(), run, longest=6, budget=6)(texts)
    for text, vector in zip(texts, found, strict=True):
        mean = table[[int(word[1:]) for word in text.split()[:6]]].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-12)
    assert all(len(lengths) * max(lengths) <= 6 for lengths in seen)
    assert sorted(length for lengths in seen for length in lengths) == [1, 2, 3, 5, 6]


def test_texts_of_the_workloads(tmp_path: Path) -> None:
    (tmp_path / "stsb").mkdir()
    (tmp_path / "stsb" / "dev.tsv").write_text(
        "index\tsentence1\tsentence2\tscore\n0\tA a\tB b\t1.0\n", encoding="utf-8"
    )
    row = "main\tnews\t2012\t1\t2.5\tC c\tD d\n"
    (tmp_path / "stsb" / "sts-test.labelled.tsv").write_text(row, encoding="utf-8")
    (tmp_path / "wikitext2").mkdir()
    lines = [" = Title = ", "", " w1 w2 w3 w4 w5 . w6 w7 w8 w1 w2 . ", " w1 "]
    (tmp_path / "wikitext2" / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = tmp_path / "tokenizer.json"
    _tokenizer().save(str(tokenizer))
    stsb, wikitext = (texts_of(workload, tmp_path, tokenizer) for workload in WORKLOADS)
    assert sorted(stsb) == ["A a", "B b", "C c", "D d"]
    assert set(wikitext) == {lines[2].strip(), "w1 w2 w3 w4 w5 .", "w6 w7 w8 w1 w2 ."}


def test_a_ratio_is_of_rounds_with_those_who_took_part() -> None:
    rows = {
        "edgeq w8a8": _Row(seconds=[1.0] * 7),
        "other": _Row(seconds=[2.0] * 7),
        "absent": _Row(missing="no such file"),
    }
    own = _result("edgeq w8a8", rows["edgeq w8a8"], rows, 10)
    assert own["texts_per_second"] == 10
    assert own["versus"].keys() == {"other"}
    assert own["versus"]["other"]["ratio"] == pytest.approx(2.0)
    assert "texts_per_second" not in _result("absent", rows["absent"], rows, 10)
