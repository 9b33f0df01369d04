"""Texts without labels for calibration: read, tokenised, and checked for what the tokenizer does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeq.errors import UsageError
from edgeq.evaluate.columns import PAIRS, TEXTS
from edgeq.models import ModelAdapter
from edgeq.training.data import SOURCES, alternatives, load_pretraining_texts
from edgeq.training.examples import ExampleSet
from edgeq.training.rows import Rows, read_data

SUFFIXES = (".txt", ".tsv", ".jsonl")
MOST_UNKNOWN = 0.2
"""A text with a larger share of unknown tokens says nothing about what a model does."""
FEWEST_TOKENS = 512
"""Fewer tokens do not even tell the scale of a layer's inputs."""


@dataclasses.dataclass(frozen=True)
class UnlabelledTexts:
    """Tokenised texts.

    Attributes:
        examples: The texts; of a language model, blocks of tokens with the tokens that follow as labels.
        unknown: Texts that were left out because the tokenizer knows too few of their words.
    """

    examples: ExampleSet
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return int(self.examples.lengths.sum())

    def batches(self, tokens: int, *, seed: int, most: int | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """Yields the texts in batches of one length, so that nothing is padded.

        Args:
            tokens: Most tokens of a batch, which holds one text at least.
            seed: Gives the order.
            most: Yields no more texts once they have this many tokens; None yields all.
        """
        random = np.random.default_rng(seed)
        order, lengths = random.permutation(len(self.examples)), self.examples.lengths
        if most is not None:
            order = order[: 1 + int(np.searchsorted(np.cumsum(lengths[order]), most))]
        alike: dict[tuple[int, int], list[int]] = {}
        for index in order.tolist():
            alike.setdefault(self._sizes(index), []).append(index)
        chosen: list[list[int]] = []
        for rows in alike.values():
            size = max(1, tokens // int(lengths[rows[0]]))
            chosen += [rows[start : start + size] for start in range(0, len(rows), size)]
        for number in random.permutation(len(chosen)).tolist():
            yield self.examples.batch(chosen[number])

    def _sizes(self, index: int) -> tuple[int, int]:
        labels = self.examples.labels
        return len(self.examples.inputs[index]), 0 if labels is None else len(labels[index])


def load_unlabelled_texts(
    source: str | Path, *, tokenizer: Any, adapter: ModelAdapter, max_length: int
) -> UnlabelledTexts:
    """Reads calibration texts.

    A ``.txt`` file holds a text a line, or for a language model one text; ``.tsv`` and ``.jsonl`` files have the
    columns of training data, whose labels are not looked at. Encoder-decoders that are given texts without what is to
    be written read each text on both sides.

    Args:
        source: The file.
        tokenizer: The model's tokenizer.
        adapter: The model's adapter.
        max_length: Tokens of a text, or of a block of a language model.

    Raises:
        UsageError: If the file is missing, of another kind, empty, too short, or mostly of tokens that the tokenizer
            does not know.
        FormatError: If a row is damaged.
    """
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"calibration data are a file that ends in {', '.join(SUFFIXES)}; found {str(source)!r}")
    longest = min(max_length, adapter.max_positions)
    if adapter.task in ("embed", "generate"):
        examples = load_pretraining_texts(path, tokenizer=tokenizer, adapter=adapter, max_length=longest)
    else:
        examples = _tokenised(read_data(path, split="train"), tokenizer, adapter, longest)
    texts = _known(examples, tokenizer, path)
    if texts.tokens < FEWEST_TOKENS:
        raise UsageError(
            f"{path} has {texts.tokens} tokens for calibration; give {FEWEST_TOKENS} or more, better ten thousand"
        )
    return texts


def _tokenised(rows: Rows, tokenizer: Any, adapter: ModelAdapter, longest: int) -> ExampleSet:
    first, second = _columns(rows, seq2seq=adapter.task == "seq2seq")
    pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    if adapter.task == "seq2seq":
        sources, targets = _ids(tokenizer, first, None, longest)[0], _ids(tokenizer, second or first, None, longest)[0]
        return ExampleSet(sources, pad, labels=targets, decoder_start=int(adapter.config.decoder_start_token_id))
    ids, types = _ids(tokenizer, first, second, longest)
    return ExampleSet(ids, pad, types if "token_type_ids" in adapter.input_names else None)


def _columns(rows: Rows, *, seq2seq: bool) -> tuple[list[str], list[str] | None]:
    """Returns the texts of a file, and those that belong to them where it holds pairs."""
    if rows.column("text") and len(rows.cells) == 1:  # a plain text: each of its lines is one
        return [line for line in rows.cells[0]["text"].split("\n") if line.strip()], None
    pairs = SOURCES if seq2seq else PAIRS
    pair = next((pair for pair in pairs if all(rows.column(name) for name in pair)), None)
    if pair is not None and seq2seq:
        sources = [" ".join(alternatives(text)) for text in rows.texts(pair[0])]
        return sources, [alternatives(text)[0] for text in rows.texts(pair[1])]
    if pair is not None:
        return rows.texts(pair[0]), rows.texts(pair[1])
    column = rows.column(*TEXTS)
    if column is None:
        raise UsageError(f"{rows.source} should have a column {', '.join(TEXTS)}, found {', '.join(rows.cells[0])}")
    return rows.texts(column), None


def _ids(
    tokenizer: Any, first: list[str], second: list[str] | None, longest: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    encoded = tokenizer(first, second, truncation=True, max_length=longest, return_token_type_ids=True)
    ids, types = ([np.array(row, np.int32) for row in encoded[key]] for key in ("input_ids", "token_type_ids"))
    return ids, types


def _known(examples: ExampleSet, tokenizer: Any, path: Path) -> UnlabelledTexts:
    """Leaves out the texts that the tokenizer hardly knows."""
    unknown = tokenizer.unk_token_id
    # GPT-2 knows every byte; what its files call unknown is the token that ends a text.
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        return UnlabelledTexts(examples)
    shares = [float((ids == unknown).mean()) for ids in examples.inputs]
    kept = [index for index, share in enumerate(shares) if share <= MOST_UNKNOWN]
    if not kept:
        raise UsageError(
            f"{path}: the tokenizer of the model knows too little of these texts (in every one, more than "
            f"{MOST_UNKNOWN:.0%} of the tokens are unknown); give texts in a language that the model was made for"
        )

    def chosen(values: Any) -> Any:
        return None if values is None else [values[index] for index in kept]

    left = dataclasses.replace(
        examples, inputs=chosen(examples.inputs), types=chosen(examples.types), labels=chosen(examples.labels)
    )
    return UnlabelledTexts(left, len(shares) - len(kept))
