"""Texts to embeddings or labels with a bundle: tokenizer, batches, pooling."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.reading import read_text
from edgeq.targets.runtime.decoder import READS_A_SOURCE
from edgeq.targets.runtime.loader import Bundle
from edgeq.targets.runtime.tokenizer import encode, load_tokenizer

_BATCH = 16
_SMALLEST_NORM = 1e-12
_LARGEST_INPUT = 1 << 32
"""Bytes of a file of texts, which is read whole."""


@dataclasses.dataclass(frozen=True)
class TextResult:
    """What a model says of one text.

    Attributes:
        text: The text.
        tokens: Number of its tokens, special ones included.
        embedding: float32 ``[width]``, or None for a classifier.
        label: Name of the likeliest class, or None for an embedding.
        scores: Probability of each class by name, or None for an embedding.
    """

    text: str
    tokens: int
    embedding: np.ndarray | None = None
    label: str | None = None
    scores: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values, without the fields that do not apply."""
        table: dict[str, Any] = {"text": self.text, "tokens": self.tokens}
        if self.embedding is not None:
            table["embedding"] = [float(value) for value in self.embedding]
        if self.label is not None and self.scores is not None:
            table |= {"label": self.label, "score": self.scores[self.label], "scores": self.scores}
        return table


def read_texts(path: Path | str, *, keep_blank: bool = False) -> list[str]:
    """Reads a UTF-8 file with one text a line.

    Args:
        path: The file; ``-`` is standard input.
        keep_blank: Return blank lines as empty texts at their places; otherwise they are skipped.

    Raises:
        UsageError: If the file cannot be read, is not UTF-8, or holds no text.
    """
    content = read_input(path)
    # Not splitlines(): a text may hold exotic separators, such as U+2028.
    lines = [line.strip("\r") for line in content.removesuffix("\n").split("\n")]
    texts = [line if line.strip() else "" for line in lines]
    if not any(texts):
        raise UsageError(f"{path} holds no text: one text a line is expected")
    return texts if keep_blank else [text for text in texts if text]


def read_input(path: Path | str) -> str:
    """Returns a UTF-8 text from a file, or from standard input if the name is ``-``.

    Raises:
        UsageError: If it cannot be read, or is not UTF-8.
    """
    try:
        if str(path) != "-":
            return read_text(Path(path), largest=_LARGEST_INPUT, encoding="utf-8-sig")
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: byte {error.start} cannot be read; convert it") from None
    except FormatError as error:
        raise UsageError(str(error)) from None


def run_texts(bundle: Bundle, texts: Sequence[str], *, batch: int = _BATCH) -> Iterator[TextResult]:
    """Runs texts through a bundle, in order.

    Every text is checked before the first is run. Batches and padding do not change the results.

    Args:
        bundle: A loaded bundle that carries a tokenizer.
        texts: The texts.
        batch: Texts in one call.

    Raises:
        UsageError: If a text is empty or longer than the model allows, or the bundle has no tokenizer.
        FormatError: If the tokenizer file is damaged.
    """
    if bundle.manifest.model.task == "generate":
        raise UsageError(f"bundle {bundle.path} continues texts; use `edgeq generate`")
    if bundle.manifest.model.task == "seq2seq":
        raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
    tokenizer = load_tokenizer(bundle.path)
    encoded = [_encode(tokenizer, text, index, bundle) for index, text in enumerate(texts)]
    return _run_encoded(bundle, texts, encoded, batch)


def embed(bundle: Bundle, texts: Sequence[str]) -> np.ndarray:
    """Returns one vector a text, float32 ``[texts, width]``.

    Raises:
        UsageError: As :func:`run_texts`, and if the bundle is a classifier.
    """
    if bundle.manifest.model.task != "embed":
        raise UsageError(f"bundle {bundle.path} classifies texts; it gives labels, not embeddings")
    vectors = [result.embedding for result in run_texts(bundle, texts)]
    return np.stack([vector for vector in vectors if vector is not None])


def _run_encoded(
    bundle: Bundle, texts: Sequence[str], encoded: Sequence[list[int]], batch: int
) -> Iterator[TextResult]:
    for start in range(0, len(encoded), batch):
        part = encoded[start : start + batch]
        length = max(len(ids) for ids in part)
        ids = np.zeros((len(part), length), np.int64)
        mask = np.zeros((len(part), length), np.int64)
        for row, tokens in enumerate(part):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        outputs = bundle(input_ids=ids, attention_mask=mask)
        array = next(iter(outputs.values()))
        for row, tokens in enumerate(part):
            yield _result(bundle, texts[start + row], array[row], len(tokens))


def _result(bundle: Bundle, text: str, output: np.ndarray, tokens: int) -> TextResult:
    model = bundle.manifest.model
    if model.task == "classify":
        scores = _softmax(output)
        names = [
            model.labels[index] if index < len(model.labels) else f"LABEL_{index}"
            for index in range(len(scores))
        ]
        named = {name: float(score) for name, score in zip(names, scores, strict=True)}
        return TextResult(text, tokens, label=names[int(np.argmax(output))], scores=named)
    vector = pool(output[:tokens], model.pooling, normalize=model.normalize)
    return TextResult(text, tokens, embedding=vector)


def pool(vectors: np.ndarray, pooling: str, *, normalize: bool) -> np.ndarray:
    """Turns the vectors of a text's tokens into one.

    Args:
        vectors: float32 ``[tokens, width]``, padding excluded; or ``[width]`` if the model pools itself.
        pooling: ``mean``, ``cls`` or ``max``.
        normalize: Scale the result to length 1.

    Returns:
        float32 ``[width]``.
    """
    if vectors.ndim == 1:
        pooled = vectors.astype(np.float64)
    elif pooling == "mean":
        pooled = vectors.astype(np.float64).mean(axis=0)
    elif pooling == "max":
        pooled = vectors.max(axis=0).astype(np.float64)
    else:
        pooled = vectors[0].astype(np.float64)
    if normalize:
        pooled = pooled / max(float(np.sqrt(np.sum(pooled * pooled))), _SMALLEST_NORM)
    return pooled.astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()


def _encode(tokenizer: Any, text: str, index: int, bundle: Bundle) -> list[int]:
    if not text.strip():
        raise UsageError(f"text {index + 1} is empty; give at least one word")
    ids = encode(tokenizer, text, f"text {index + 1}")
    longest = bundle.manifest.model.max_length
    if longest is not None and len(ids) > longest:
        raise UsageError(
            f"text {index + 1} has {len(ids)} tokens, the model takes at most {longest}; shorten or split it"
        )
    return ids
