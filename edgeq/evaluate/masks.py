"""Texts with words left out: how often the most likely word is the one that stood there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edgeq.errors import UsageError
from edgeq.evaluate.batches import Batches, Tokens
from edgeq.evaluate.columns import TEXTS
from edgeq.evaluate.data import read_examples_file, read_rows
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning, Unit

SHARE = 0.15
"""Share of the tokens of a text that are left out, as in BERT's pre-training."""
_TABLES = (".tsv", ".csv", ".jsonl")
_SEED = 15


@dataclasses.dataclass(frozen=True)
class MaskedTexts(EvaluationData):
    """Texts of which some tokens are to be predicted.

    Attributes:
        path: Where they came from.
        examples: The texts, whole.
    """

    path: Path
    examples: list[str]
    unit: Unit = "tokens"

    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """Returns the share of masks for which the token that stood there is the most likely one.

        The same tokens of a text are left out in every run: they are drawn with the number of the text.
        """
        del meaning
        mask = run.tokenizer.mask_token_id
        if mask is None:
            raise UsageError(f"{self.path}: the tokenizer of the model has no mask token, so no word can be left out")
        masked = [
            masked_tokens(run.tokens(text), run.tokenizer.all_special_ids, mask=int(mask), seed=number)
            for number, text in enumerate(self.examples)
        ]

        def read(index: int, outputs: dict[str, np.ndarray]) -> np.ndarray:
            logits = outputs.get("logits")
            if logits is None or logits.ndim != 2:
                raise UsageError(f"{self.path} has words to be left out, which needs a masked language model")
            return np.asarray(logits[masked[index].places].argmax(axis=-1))

        found = np.concatenate(run.of_tokens([one.tokens for one in masked], read)).astype(np.int64)
        wanted = np.concatenate([one.wanted for one in masked])
        return Evaluation("top-1", (found == wanted).astype(np.float64)[:, None], found)


@dataclasses.dataclass(frozen=True)
class Masked:
    """A text with tokens left out.

    Attributes:
        tokens: Its tokens, with masks.
        places: int64: where masks are.
        wanted: int64: the tokens that stood there.
    """

    tokens: Tokens
    places: np.ndarray
    wanted: np.ndarray


def masked_tokens(tokens: Tokens, special: list[int], *, mask: int, seed: int) -> Masked:
    """Leaves tokens of a text out: :data:`SHARE` of those that are not special, and one at least.

    Args:
        tokens: The tokens of a text.
        special: Ids of special tokens, which stay.
        mask: Id of the mask.
        seed: Decides which tokens are left out.
    """
    ids = np.array(tokens["input_ids"], np.int64)
    plain = np.flatnonzero(~np.isin(ids, special))
    count = min(len(plain), max(1, round(SHARE * len(plain))))
    places = np.sort(np.random.default_rng([_SEED, seed]).permutation(plain)[:count])
    wanted = ids[places]
    ids[places] = mask
    return Masked({**tokens, "input_ids": ids.tolist()}, places, wanted)


def read_masked_texts(path: Path | str, *, limit: int | None = None) -> MaskedTexts:
    """Reads texts of which words are to be left out.

    Args:
        path: A text file with a text a line, or a ``.tsv``, ``.csv`` or ``.jsonl`` file with a column ``text``.
        limit: Read no more than this many texts.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or has no such column.
        FormatError: If a row cannot be read.
    """
    path = Path(path)
    if path.suffix in _TABLES:
        rows = read_rows(path)
        column = next((name for name in TEXTS if name in rows[0][1]), None)
        if column is None or any(column not in row for _, row in rows):
            raise UsageError(f"{path} should have a column {' or '.join(TEXTS)}, found {', '.join(rows[0][1])}")
        texts = [row[column] for _, row in rows]
    else:
        texts = [line.strip("\r") for line in read_examples_file(path).split("\n")]
    examples = [text for text in texts if text.strip()][:limit]
    if not examples:
        raise UsageError(f"{path} holds no texts")
    return MaskedTexts(path, examples)
