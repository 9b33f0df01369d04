"""The main job on every head: measured on data of its task, the same at every stage, told in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.deploy import deploy
from edgeq.recipes import TrainingRequest

pytestmark = pytest.mark.slow

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "sat", "on", "mat", "good", "movie"]
TAGS = ["O", "B-X", "I-X", "B-Y"]
HEADS: dict[str, tuple[str, str | None, str]] = {
    "tags": ("BertForTokenClassification", None, "entity-f1"),
    "answers": ("BertForQuestionAnswering", "question-answering", "answer-f1"),
    "masks": ("BertForMaskedLM", "fill-mask", "top-1"),
    "rankings": ("BertForSequenceClassification", "reranking", "ndcg@10"),
    "gpt2": ("GPT2ForSequenceClassification", None, "accuracy"),
    "bart": ("BartForSequenceClassification", None, "accuracy"),
}
"""Class, task asked for, and metric."""


def _words(count: int, seed: int) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS, count).tolist()


def _data(head: str, file: Path) -> Path:
    """Writes examples whose answers are drawn at random."""
    draw = np.random.default_rng(0)
    rows: list[Any] = []
    for number in range(24):
        words = _words(4 + number % 5, number)
        if head == "tags":
            rows.append({"tokens": words, "tags": draw.choice(TAGS, len(words)).tolist()})
        elif head == "answers":
            answers = [] if number % 4 == 0 else [{"text": words[1], "answer_start": len(words[0]) + 1}]
            rows.append({"question": " ".join(_words(2, number)), "context": " ".join(words), "answers": answers})
        elif head == "masks":
            rows.append({"text": " ".join(words)})
        elif head == "rankings":
            documents = [" ".join(_words(3, 100 * number + one)) for one in range(4)]
            rows.append({"query": " ".join(words[:2]), "documents": documents, "relevance": [0, 1, 0, 2]})
        else:
            rows.append({"sentence": " ".join(words), "label": number % 3})
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Path:
    """A random model with the head that the test is for."""
    architecture = HEADS[request.param][0]
    maker = "make_" + architecture.partition("For")[0].lower()
    labels: dict[str, Any] = {}
    if request.param == "tags":
        labels = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    elif architecture.endswith("SequenceClassification"):
        labels = {"num_labels": 1 if request.param == "rankings" else 3}
    make: Callable[..., Path] = request.getfixturevalue(maker)
    return make(architecture, **labels)


@pytest.mark.parametrize(("model", "head"), [(head, head) for head in HEADS], indirect=["model"])
def test_every_head_is_deployed_whole(model: Path, head: str, tmp_path: Path) -> None:
    _, task, metric = HEADS[head]
    result = deploy(
        model, tmp_path / "run", recipe="ptq-w8a8", task=task, eval_data=_data(head, tmp_path / "data.jsonl"),
        rounds=2, sequence=16, threads=1,
    )  # fmt: skip
    assert result.passed, result.report.parity.broken
    accuracy = result.report.accuracy
    assert accuracy.metric == metric
    assert set(accuracy.stages) == {"torch float32", "torch compressed", "bundle host"}
    assert [check.rule for check in accuracy.checks] == ["task"]
    checks = {(check.stage, check.rule) for check in result.report.parity.checks}
    assert {("tvm host", "task"), ("tvm host", "end-to-end"), ("onnxruntime", "end-to-end")} <= checks
    page = (tmp_path / "run" / "report.html").read_text()
    assert metric in page
    assert all(name in page for score in accuracy.stages.values() for name in score.others)


@pytest.mark.parametrize(("model", "head"), [("masks", "masks"), ("tags", "tags")], indirect=["model"])
def test_a_head_is_trained_and_deployed(model: Path, head: str, tmp_path: Path) -> None:
    """A float student of a masked language model is still one in the stages behind the training."""
    data = _data(head, tmp_path / "data.jsonl")
    request = TrainingRequest(train_data=data, eval_data=data, epochs=1.0)
    recipe = "finetune" if head == "masks" else "paretoq-w2e2a8"
    result = deploy(
        model, tmp_path / "run", recipe=recipe, task=HEADS[head][1], training=request, eval_data=data,
        rounds=2, sequence=16, threads=1,
    )  # fmt: skip
    assert result.passed, result.report.parity.broken
    assert result.report.accuracy.metric == HEADS[head][2]
    assert result.report.training.task == ("masked-words" if head == "masks" else "tags")
