"""Words with a tag each: F1 by entity."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.batches import Batches, Tokens
from edgeq.evaluate.data import read_examples_file
from edgeq.evaluate.entities import entities
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning
from edgeq.formats.json_file import parse_json

_DOCUMENT = "-DOCSTART-"
"""Word of a line that begins a document in CoNLL's files."""
_WORDS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "labels", "pos_tags", "upos")
_IGNORED = frozenset(("id", "idx", "document", "sentence_id", "text"))


@dataclasses.dataclass(frozen=True)
class TaggedText:
    """A sentence.

    Attributes:
        words: Its words.
        tags: A tag for each: as it stands in the file, or the number of a label as digits.
        place: Where it stands, such as ``line 3``.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: str


@dataclasses.dataclass(frozen=True)
class TaggedTexts(EvaluationData):
    """Sentences whose words have tags.

    Attributes:
        path: Where they came from.
        examples: The sentences.
    """

    path: Path
    examples: list[TaggedText]

    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """Returns F1 by entity, with precision, recall and the share of right words beside it.

        The tag of a word is that of its first token. A sentence that is longer than the model reads is read in parts.
        """
        wanted = [named_tags(self.path, text, meaning.labels) for text in self.examples]
        parts = [(index, span) for index, text in enumerate(self.examples) for span in _spans(run, text.words)]
        encoded = [tokens_of_words(run.tokenizer, self.examples[index].words[span]) for index, span in parts]

        def read(part: int, outputs: dict[str, np.ndarray]) -> np.ndarray:
            logits = outputs["logits"]
            if logits.ndim != 2:
                raise UsageError(f"{self.path} holds a tag for each word, which needs a model that labels tokens")
            firsts = encoded[part].firsts
            return np.array([-1 if first is None else int(logits[first].argmax()) for first in firsts], np.int64)

        found: list[list[int]] = [[] for _ in self.examples]
        for (index, _), numbers in zip(parts, run.of_tokens([one.tokens for one in encoded], read), strict=True):
            found[index] += numbers.tolist()
        tags = [["O" if number < 0 else str(meaning.labels[number]) for number in row] for row in found]
        rows = np.array([_counts(*pair) for pair in zip(tags, wanted, strict=True)], np.float64)
        right = [one == other for pair in zip(tags, wanted, strict=True) for one, other in zip(*pair, strict=True)]
        hits, predicted, actual = rows.sum(axis=0)
        others = {
            "precision": float(hits / predicted) if predicted else 0.0,
            "recall": float(hits / actual) if actual else 0.0,
            "word accuracy": float(np.mean(right)),
        }
        return Evaluation("entity-f1", rows, np.concatenate([np.array(row, np.int64) for row in found]), others)


@dataclasses.dataclass(frozen=True)
class WordTokens:
    """The tokens of some words.

    Attributes:
        tokens: The tokens, special ones included.
        firsts: For each word the place of its first token; None for a word that the tokenizer leaves out.
    """

    tokens: Tokens
    firsts: list[int | None]


def tokens_of_words(tokenizer: Any, words: Sequence[str]) -> WordTokens:
    """Tokenises words as the text that they are, with one space between them.

    Args:
        tokenizer: A ``transformers`` tokenizer that knows where its tokens stand in a text.
        words: The words.

    Raises:
        UsageError: If the tokenizer does not know it.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"{type(tokenizer).__name__} does not say where its tokens stand in a text, which tags of words need; give "
            "the model a tokenizer.json"
        )
    encoded = tokenizer(" ".join(words), return_offsets_mapping=True, return_token_type_ids=True, verbose=False)
    ends = np.cumsum([len(word) + 1 for word in words])
    firsts: list[int | None] = [None] * len(words)
    special = encoded.encodings[0].special_tokens_mask
    for place, (start, end) in enumerate(encoded["offset_mapping"]):
        if special[place] or start == end:
            continue
        # A token may begin with the space before its word.
        word = int(np.searchsorted(ends, end - 1, side="right"))
        if word < len(words) and firsts[word] is None:
            firsts[word] = place
    return WordTokens({key: encoded[key] for key in ("input_ids", "token_type_ids")}, firsts)


def _spans(run: Batches, words: Sequence[str]) -> Iterator[slice]:
    """Yields the parts of a sentence that the model can read, each as long as halving makes it."""
    waiting = [slice(0, len(words))]
    while waiting:
        span = waiting.pop()
        length = len(tokens_of_words(run.tokenizer, words[span]).tokens["input_ids"])
        if length <= run.max_length:
            yield span
        elif span.stop - span.start == 1:
            raise UsageError(
                f"the word {words[span.start][:40]!r} alone has {length} tokens, and the model reads {run.max_length}"
            )
        else:
            middle = (span.start + span.stop) // 2
            waiting += [slice(middle, span.stop), slice(span.start, middle)]


def named_tags(path: Path, text: TaggedText, labels: Sequence[str]) -> list[str]:
    """Returns the tags of a sentence by the names that the model has for them.

    Raises:
        UsageError: If the model does not know one.
    """
    known = set(labels)
    named = []
    for tag in text.tags:
        number = int(tag) if tag.isascii() and tag.isdigit() else -1
        if tag in known:
            named.append(tag)
        elif 0 <= number < len(labels):
            named.append(str(labels[number]))
        else:
            known_names = ", ".join(labels) or "it has none"
            raise UsageError(f"{path}, {text.place}: tag {tag!r} is none of the model's labels ({known_names})")
    return named


def _counts(found: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
    predicted, actual = entities(found), entities(wanted)
    return len(predicted & actual), len(predicted), len(actual)


def read_tagged_texts(path: Path | str, *, limit: int | None = None) -> TaggedTexts:
    """Reads sentences with a tag for each word.

    Args:
        path: A ``.jsonl`` file with ``tokens`` and ``tags`` (or ``ner_tags``, names or numbers) in each line; or a file
            of columns as CoNLL has them: a word a line with its tag in the last column, blank lines between sentences.
        limit: Read no more than this many sentences.

    Raises:
        UsageError: If the file is missing, empty or not UTF-8.
        FormatError: If a line cannot be read.
    """
    path = Path(path)
    lines = read_examples_file(path).split("\n")
    read = _of_json(path, lines) if path.suffix == ".jsonl" else _of_columns(path, lines)
    examples = [text for text, _ in zip(read, range(limit if limit is not None else len(lines)), strict=False)]
    if not examples:
        raise UsageError(f"{path} holds no sentences")
    return TaggedTexts(path, examples)


def _of_columns(path: Path, lines: Iterable[str]) -> Iterator[TaggedText]:
    words: list[str] = []
    tags: list[str] = []
    first = 1
    for number, line in enumerate([*lines, ""], start=1):
        cells = line.strip("\r").split("\t" if "\t" in line else None)
        if not any(cell.strip() for cell in cells):
            if words and words[0] != _DOCUMENT:
                yield TaggedText(tuple(words), tuple(tags), f"line {first}")
            words, tags, first = [], [], number + 1
            continue
        if len(cells) < 2 or not cells[0].strip() or not cells[-1].strip():
            raise FormatError(
                f"{path}, line {number}: expected a word and its tag in the last column, found {line[:60]!r}"
            )
        words.append(cells[0].strip())
        tags.append(cells[-1].strip())


def _of_json(path: Path, lines: Iterable[str]) -> Iterator[TaggedText]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        row = parse_json(line, where=where)
        if not isinstance(row, dict):
            raise FormatError(f"{where} expected a JSON object, found {line[:60]!r}")
        words, tags = _one_of(row, _WORDS, where), _one_of(row, _TAGS, where)
        if strange := sorted(row.keys() - {*_WORDS, *_TAGS, *_IGNORED}):
            raise FormatError(f"{where} nothing says what {strange[0]!r} is for; keep {_WORDS[0]} and {_TAGS[0]}")
        if len(words) != len(tags) or not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise FormatError(f"{where} expected as many tags as words, and a text for each word")
        if not all(isinstance(tag, str) or type(tag) is int for tag in tags):
            raise FormatError(f"{where} a tag is a name or the number of a label, found {json.dumps(tags)[:60]}")
        yield TaggedText(tuple(words), tuple(map(str, tags)), f"line {number}")


def _one_of(row: dict[str, Any], names: Sequence[str], where: str) -> list[Any]:
    present = [name for name in names if name in row]
    if len(present) != 1 or not isinstance(row[present[0]], list):
        raise FormatError(f"{where} expected one list called {' or '.join(names)}, found {', '.join(row)}")
    values: list[Any] = row[present[0]]
    return values
