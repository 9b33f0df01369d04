"""Texts to embeddings or labels with a bundle: prompts, tokenizer, batches, and what the outputs mean."""

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
from edgeq.targets.runtime.scores import Scores, scores_of
from edgeq.targets.runtime.text_info import EMBEDDING
from edgeq.targets.runtime.text_inputs import EncodedText, Text, TextReader, padded_batch

_BATCH = 16
_SMALLEST_NORM = 1e-12
_LARGEST_INPUT = 1 << 32
"""Bytes of a file of texts, which is read whole."""


@dataclasses.dataclass(frozen=True)
class TextResult:
    """What a model says of one text.

    Attributes:
        text: The text, or a pair of them.
        tokens: Number of its tokens, special ones and those of a prompt included.
        truncated: Whether tokens at an end were cut off, because the model reads no more.
        embedding: float32 ``[width]``, or None for a classifier.
        scores: The score of each class, or None for an embedding.
    """

    text: Text
    tokens: int
    truncated: bool = False
    embedding: np.ndarray | None = None
    scores: Scores | None = None

    @property
    def label(self) -> str | None:
        """Name of the class with the highest score, or None for an embedding."""
        return None if self.scores is None else self.scores.label

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values, without the fields that do not apply."""
        if isinstance(self.text, str):
            table: dict[str, Any] = {"text": self.text}
        else:
            table = {"text": self.text[0], "text_pair": self.text[1]}
        table["tokens"] = self.tokens
        if self.truncated:
            table["truncated"] = True
        if self.embedding is not None:
            table["embedding"] = [float(value) for value in self.embedding]
        if self.scores is not None:
            table |= self.scores.to_json()
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


def read_pairs(path: Path | str) -> list[tuple[str, str]]:
    """Reads a UTF-8 file with two texts a line and one tab between them.

    Raises:
        UsageError: If the file cannot be read, is not UTF-8, holds nothing, or a line is no pair.
    """
    pairs = []
    for number, line in enumerate(read_texts(path), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise UsageError(f"{path}, pair {number}: expected two texts and one tab between them, found {line[:60]!r}")
        pairs.append((cells[0], cells[1]))
    return pairs


def run_texts(
    bundle: Bundle, texts: Sequence[Text], *, batch: int = _BATCH, prompt_name: str | None = None
) -> Iterator[TextResult]:
    """Runs texts through a bundle, in order.

    Every text is checked before the first is run. Batches and padding do not change the results.

    Args:
        bundle: A loaded bundle that carries a tokenizer.
        texts: The texts, or pairs of texts.
        batch: Texts in one call.
        prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.

    Raises:
        UsageError: If a text is empty or longer than the model allows, the model has no such prompt, or the bundle has
            no tokenizer.
        FormatError: If the tokenizer file is damaged.
    """
    if bundle.manifest.model.task == "generate":
        raise UsageError(f"bundle {bundle.path} continues texts; use `edgeq generate`")
    if bundle.manifest.model.task == "seq2seq":
        raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
    reader = TextReader(bundle, prompt_name=prompt_name)
    encoded = [reader.encode(text, f"text {index + 1}") for index, text in enumerate(texts)]
    return _run_encoded(bundle, encoded, batch)


def embed(bundle: Bundle, texts: Sequence[str], *, prompt_name: str | None = None) -> np.ndarray:
    """Returns one vector a text, float32 ``[texts, width]``.

    Raises:
        UsageError: As :func:`run_texts`, and if the bundle is a classifier.
    """
    if bundle.manifest.model.task != "embed":
        raise UsageError(f"bundle {bundle.path} classifies texts; it gives labels, not embeddings")
    vectors = [result.embedding for result in run_texts(bundle, texts, prompt_name=prompt_name)]
    return np.stack([vector for vector in vectors if vector is not None])


def _run_encoded(bundle: Bundle, encoded: Sequence[EncodedText], batch: int) -> Iterator[TextResult]:
    for start in range(0, len(encoded), batch):
        part = encoded[start : start + batch]
        outputs = bundle(**padded_batch(part, bundle.inputs))
        for row, text in enumerate(part):
            yield _result(bundle, text, {name: array[row] for name, array in outputs.items()})


def _result(bundle: Bundle, text: EncodedText, outputs: dict[str, np.ndarray]) -> TextResult:
    model, info = bundle.manifest.model, bundle.manifest.text
    first = next(iter(outputs.values()))
    if model.task == "classify":
        scores = scores_of(first, model.labels, info.scores)
        return TextResult(text.text, len(text.ids), text.truncated, scores=scores)
    vector = outputs.get(EMBEDDING)
    if vector is None:
        vector = pool(first[: len(text.ids)], model.pooling, normalize=model.normalize)
    return TextResult(text.text, len(text.ids), text.truncated, embedding=vector)


def pool(vectors: np.ndarray, pooling: str, *, normalize: bool) -> np.ndarray:
    """Turns the vectors of a text's tokens into one, where the graph does not.

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
