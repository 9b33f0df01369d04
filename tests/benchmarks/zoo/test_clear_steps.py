"""How clear steps are counted: texts of each kind, and groups that add up."""

import json

import numpy as np
import pytest

from benchmarks.zoo.bart_infill_scitldr import BEGIN, END, MASK, ROLES
from benchmarks.zoo.bpe import train_bpe
from benchmarks.zoo.clear_steps import PASSAGE, cut_texts, summed, whole_sources

LINE = " ".join(f"word{number}" for number in range(150))


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([LINE], entries=280, special=list(ROLES.values()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "wikitext2").mkdir()
    (folder / "scitldr").mkdir()
    articles = "".join(f" = Title {number} = \n \n {LINE} \n short \n" for number in range(4))
    (folder / "wikitext2" / "test.txt").write_text(articles)
    rows = [{"source": ["First sentence.", f"Second {number}."], "target": ["Short."]} for number in range(3)]
    (folder / "scitldr" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_kind_has_as_many_texts(data, tokenizer):
    kinds = cut_texts(data, 2, tokenizer)
    assert [len(texts) for texts in kinds.values()] == [2, 2, 2, 2]
    assert kinds["SciTLDR test, abstracts"][1] == "First sentence. Second 1."
    assert all("<mask>" in text for text in kinds["WikiText-2 test, masked"])
    assert not any("<mask>" in text for text in kinds["WikiText-2 test"])


def test_whole_sources_are_as_in_training(data, tokenizer):
    kinds = whole_sources(data, 2, tokenizer)
    assert [len(sources) for sources in kinds.values()] == [2, 2]
    for noisy in kinds["masked passages, whole"]:
        assert (noisy[0], noisy[-1]) == (BEGIN, END)
        assert 0 < np.count_nonzero(noisy == MASK) < PASSAGE / 2


def test_groups_add_up():
    part = {"steps": 10, "clear": 9, "broken": [], "changed": {"tvm": 0}, "unclear_changed": {"tvm": 1}}
    other = {"steps": 30, "clear": 29, "broken": ["tvm"], "changed": {"tvm": 1}, "unclear_changed": {"tvm": 0}}
    found = summed("kind", [part, other])
    assert (found["steps"], found["clear"], found["share"], found["broken"]) == (40, 38, 0.95, ["tvm"])
    assert (found["changed"], found["unclear_changed"]) == ({"tvm": 1}, {"tvm": 1})
