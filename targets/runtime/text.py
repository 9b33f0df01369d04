"""Texts to embeddings or labels with a bundle: prompts, tokenizer, batches, and what the outputs mean."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.formats.tasks import TASKS
from edgeq.reading import read_text
from edgeq.targets.runtime.decoder import READS_A_SOURCE
from edgeq.targets.runtime.scores import Scores, scores_of
from edgeq.targets.runtime.text_batches import TOKEN_BUDGET, group_by_length, windows
from edgeq.targets.runtime.text_info import EMBEDDING
from edgeq.targets.runtime.text_inputs import EncodedText, Text, padded_batch

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

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
    bundle: Bundle, texts: Iterable[Text], *, prompt_name: str | None = None, token_budget: int = TOKEN_BUDGET
) -> Iterator[TextResult]:
    """Runs texts through a bundle and yields the results in the order of the texts.

    Texts of about the same length run together, so little padding is computed; neither that nor the budget changes a
    bit of a result. Texts are taken, encoded and checked in windows of 64 full batches, the first one before this
    returns. So the memory depends on the budget and the longest text, and not on the number of texts.

    Args:
        bundle: A loaded bundle that carries a tokenizer.
        texts: The texts, or pairs of texts; any iterable.
        prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
        token_budget: Most tokens of a batch, padding included; a text that is longer runs alone.

    Raises:
        UsageError: If a text is empty or longer than the model allows, the model has no such prompt, the budget is not
            positive, or the bundle has no tokenizer.
        FormatError: If the tokenizer file is damaged.
    """
    if bundle.manifest.model.task == "generate":
        raise UsageError(f"bundle {bundle.path} continues texts; use `edgeq generate`")
    if bundle.manifest.model.task == "seq2seq":
        raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
    if bundle.manifest.model.task not in ("embed", "classify"):
        does = TASKS[bundle.manifest.model.task].does
        raise UsageError(f"bundle {bundle.path} gives {does}, neither embeddings nor labels of texts")
    parts = windows(bundle.text_reader(prompt_name), texts, token_budget=token_budget)
    # A bad text among the first ones is found here, and not when a result is asked for.
    first = list(itertools.islice(parts, 1))
    return _run_windows(bundle, itertools.chain(first, parts), token_budget)


def encode(bundle: Bundle, texts: Iterable[Text], *, prompt_name: str | None, token_budget: int) -> np.ndarray:
    """Returns one vector a text; see :meth:`edgeq.targets.runtime.loader.Bundle.encode`."""
    if bundle.manifest.model.task == "classify":
        raise UsageError(f"bundle {bundle.path} classifies texts and gives labels, not embeddings; use predict()")
    results = run_texts(bundle, texts, prompt_name=prompt_name, token_budget=token_budget)
    vectors = [result.embedding for result in results if result.embedding is not None]
    if vectors:
        return np.stack(vectors)
    output = next((spec for spec in bundle.outputs if spec.name == EMBEDDING), bundle.outputs[0])
    return np.empty((0, int(output.shape[-1])), np.float32)


def predict(
    bundle: Bundle, texts: Iterable[Text], *, prompt_name: str | None, token_budget: int
) -> list[TextResult]:
    """Returns label and scores of each text; see :meth:`edgeq.targets.runtime.loader.Bundle.predict`."""
    if bundle.manifest.model.task == "embed":
        raise UsageError(f"bundle {bundle.path} embeds texts and gives no labels; use encode()")
    return list(run_texts(bundle, texts, prompt_name=prompt_name, token_budget=token_budget))


def _run_windows(
    bundle: Bundle, parts: Iterable[Sequence[EncodedText]], token_budget: int
) -> Iterator[TextResult]:
    for window in parts:
        found: dict[int, TextResult] = {}
        for group in group_by_length([len(text.ids) for text in window], token_budget=token_budget):
            outputs = bundle(**padded_batch([window[index] for index in group], bundle.inputs))
            for row, index in enumerate(group):
                found[index] = _result(bundle, window[index], {name: array[row] for name, array in outputs.items()})
        yield from (found[index] for index in range(len(window)))


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
