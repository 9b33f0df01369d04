"""Rerankers as sentence-transformers writes and runs them, where that library is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.evaluate.ranking import Query, Rankings
from edgeq.evaluate.tasks import evaluate
from edgeq.formats.json_file import read_json_object
from edgeq.models import TorchEncoder
from edgeq.targets.bundle.text_settings import read_text_info

library = pytest.importorskip(
    "sentence_transformers",
    reason="needs sentence-transformers, which `.venv/bin/pip install sentence-transformers` installs",
)
QUERY = "the cat sat"
DOCUMENTS = ["a good movie", "the lazy cat sat on the mat", "word1 word2", "the dog", "cat sat"]


@pytest.fixture(params=[None, torch.nn.Identity(), torch.nn.Sigmoid()], ids=["default", "identity", "sigmoid"])
def folder(request: pytest.FixtureRequest, make_bert: Callable[..., Path], tmp_path: Path) -> tuple[Any, Path]:
    """A cross-encoder, and the folder that it writes."""
    options = {} if request.param is None else {"activation_fn": request.param}
    source = make_bert("BertForSequenceClassification", num_labels=1, num_hidden_layers=1)
    encoder = library.CrossEncoder(str(source), num_labels=1, device="cpu", **options)
    encoder.save_pretrained(str(tmp_path / "model"))
    return encoder, tmp_path / "model"


def _scores(folder: Path, documents: list[str]) -> list[float]:
    """Scores as a bundle makes them of the model's logits."""
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.adapter.task, len(checkpoint.adapter.labels)) == ("classify", 1)
    info = read_text_info(folder, read_json_object(folder / "config.json"), task="classify", classes=1)
    run = TorchEncoder(checkpoint.model, checkpoint.adapter)
    values = []
    for document in documents:
        tokens = checkpoint.tokenizer(QUERY, document, return_tensors="np", return_token_type_ids=True)
        given = {name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        logit = float(run(**given)["logits"][0, 0])
        values.append({"none": logit, "sigmoid": 1 / (1 + np.exp(-logit))}[info.scores])
    return values


def test_scores_and_order_are_those_of_the_library(folder: tuple[Any, Path], tmp_path: Path) -> None:
    encoder, source = folder
    pairs = [(QUERY, document) for document in DOCUMENTS]
    np.testing.assert_allclose(_scores(source, DOCUMENTS), encoder.predict(pairs), atol=1e-5)
    ranked = [entry["corpus_id"] for entry in encoder.rank(QUERY, DOCUMENTS)]
    assert np.argsort(-np.array(_scores(source, DOCUMENTS)), kind="stable").tolist() == ranked
    # What the folder says of scores survives compression.
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8", task="reranking")
    np.testing.assert_allclose(_scores(tmp_path / "out", DOCUMENTS), encoder.predict(pairs), atol=0.05)


def test_rankings_are_measured_as_by_the_library(folder: tuple[Any, Path]) -> None:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    encoder, source = folder
    draw = np.random.default_rng(0)
    samples = []
    for _ in range(6):
        texts = [" ".join(draw.choice(QUERY.split() + DOCUMENTS, 3)) + f" word{number}" for number in range(5)]
        samples.append({"query": " ".join(draw.choice(DOCUMENTS, 2)), "positive": texts[:2], "negative": texts[2:]})
    wanted = CrossEncoderRerankingEvaluator(samples, at_k=10, show_progress_bar=False)(encoder)
    checkpoint = load_checkpoint(source)
    queries = [
        Query(one["query"], (*one["positive"], *one["negative"]), (1.0, 1.0, 0.0, 0.0, 0.0)) for one in samples
    ]
    result = evaluate(
        TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter)),
        checkpoint.tokenizer,
        Rankings(Path("samples"), queries),
        labels=checkpoint.adapter.labels,
        max_length=checkpoint.adapter.max_positions,
    )
    found = {name.rpartition("_")[2]: value for name, value in wanted.items()}
    assert result.value == pytest.approx(found["ndcg@10"])
    assert result.others["mrr@10"] == pytest.approx(found["mrr@10"])
