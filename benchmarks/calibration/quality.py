"""What a compressed model is still worth: rank correlation, neighbours, accuracy, perplexity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from edgeq.backends import Backend
from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.evaluate.data import EvaluationSet, read_evaluation_set, read_text_file
from edgeq.evaluate.perplexity import evaluate_perplexity
from edgeq.evaluate.tasks import evaluate
from edgeq.models import TorchDecoder
from edgeq.models.inference import TorchEncoder

_BATCH = 32


Encode = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Token states ``[batch, length, width]`` of ids, mask and token types, all int64 ``[batch, length]``."""


def embeddings(folder: Path, texts: list[str]) -> np.ndarray:
    """Returns the mean-pooled embeddings of texts, of length 1: float64, ``[texts, width]``."""
    checkpoint = load_checkpoint(folder)
    encoder = TorchEncoder(checkpoint.model, checkpoint.adapter)
    return embed(lambda *inputs: encoder(*inputs)["last_hidden_state"], token_ids(checkpoint, texts))


def token_ids(checkpoint: Checkpoint, texts: list[str]) -> list[list[int]]:
    """Returns the tokens of texts as the model reads them."""
    longest = checkpoint.adapter.max_positions
    return list(checkpoint.tokenizer(texts, truncation=True, max_length=longest)["input_ids"])


def embed(encode: Encode, encoded: list[list[int]]) -> np.ndarray:
    """Returns mean-pooled embeddings of length 1 from any model: float64, ``[texts, width]``."""
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    rows: dict[int, np.ndarray] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        length = len(encoded[chosen[-1]])
        ids = np.zeros((len(chosen), length), np.int64)
        mask = np.zeros_like(ids)
        for row, index in enumerate(chosen):
            ids[row, : len(encoded[index])] = encoded[index]
            mask[row, : len(encoded[index])] = 1
        states = encode(ids, mask, np.zeros_like(ids)).astype(np.float64)
        means = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        rows |= dict(zip(chosen, means, strict=True))
    found = np.stack([rows[index] for index in range(len(encoded))])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def texts_of(data: EvaluationSet) -> list[str]:
    """Returns every text of a set of pairs once."""
    return sorted({text for example in data.examples for text in (example.first, example.second or "")})


def spearman(vectors: np.ndarray, data: EvaluationSet) -> float:
    """Returns the rank correlation of cosines with the scores of the pairs."""
    place = {text: index for index, text in enumerate(texts_of(data))}
    first = vectors[[place[example.first] for example in data.examples]]
    second = vectors[[place[example.second or ""] for example in data.examples]]
    scores = [float(example.target) for example in data.examples]
    return float(stats.spearmanr((first * second).sum(axis=1), scores).statistic)


def neighbour_share(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Returns the share of texts whose nearest other text is that of the float model."""
    return float((_nearest(vectors) == _nearest(reference)).mean())


def _nearest(vectors: np.ndarray) -> np.ndarray:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2.0)
    return cosines.argmax(axis=1)


def accuracy(folder: Path, file: Path) -> float:
    """Returns the share of a classifier's labels that are right."""
    checkpoint = load_checkpoint(folder)
    found = evaluate(
        TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter)),
        checkpoint.tokenizer,
        read_evaluation_set(file),
        labels=checkpoint.adapter.labels,
        max_length=checkpoint.adapter.max_positions,
    )
    return found.value


def perplexity(folder: Path, text: Path, *, tokens: int, context: int) -> float:
    """Returns the perplexity per token on the beginning of a text."""
    checkpoint: Checkpoint = load_checkpoint(folder)
    decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=torch.float32)
    model = TorchLogProbabilities(decoder.score)
    return perplexity_of(model, checkpoint.tokenizer, text, tokens=tokens, context=context)


def perplexity_of(model: Backend, tokenizer: Any, text: Path, *, tokens: int, context: int) -> float:
    """Returns the perplexity per token of any model."""
    content = read_text_file(text)
    return evaluate_perplexity(model, tokenizer, content, context=context, max_tokens=tokens, batch_size=4).value
