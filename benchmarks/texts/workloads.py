"""The texts that are embedded: real sentences and paragraphs, in a random order."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

from tokenizers import Tokenizer

SEED = 0
_WIKITEXT_COUNT = 5000
_SHORTEST = 5
_SENTENCE_END = re.compile(r"(?<= [.!?]) ")


@dataclasses.dataclass(frozen=True)
class Workload:
    """Texts and the model that embeds them.

    Attributes:
        name: ``stsb`` or ``wikitext``.
        model: Key of the models of ``benchmarks/speed``.
        longest: Tokens at which texts are cut.
        goal: How many times as many texts a second as the best other engine.
    """

    name: str
    model: str
    longest: int
    goal: float


WORKLOADS = (Workload("stsb", "minilm-l6", 256, 2.0), Workload("wikitext", "bert-base", 512, 1.8))


def texts_of(workload: Workload, data: Path, tokenizer: Path) -> list[str]:
    """Returns the texts of a workload in the order in which they arrive."""
    texts = _stsb(data / "stsb") if workload.name == "stsb" else _wikitext(data / "wikitext2", tokenizer, workload)
    random.Random(SEED).shuffle(texts)  # noqa: S311
    return texts


def _stsb(folder: Path) -> list[str]:
    """Every sentence of every pair of the dev and test splits."""
    found: list[str] = []
    for name, columns in (("dev.tsv", None), ("sts-test.labelled.tsv", slice(5, 7))):
        rows = [line.split("\t") for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        if columns is None:
            first = rows[0].index("sentence1")
            rows, columns = rows[1:], slice(first, first + 2)
        found += [cell for row in rows for cell in row[columns]]
    return found


def _wikitext(folder: Path, tokenizer: Path, workload: Workload) -> list[str]:
    """Paragraphs and single sentences, half and half, of 5 to 512 tokens."""
    paragraphs = [line.strip() for line in (folder / "train.txt").read_text(encoding="utf-8").splitlines()]
    paragraphs = [line for line in paragraphs if line and not line.startswith("=")]
    draw = random.Random(SEED)  # noqa: S311
    counter = Tokenizer.from_file(str(tokenizer))
    counter.no_truncation()
    counter.no_padding()
    found: list[str] = []
    while len(found) < _WIKITEXT_COUNT:
        text = draw.choice(paragraphs)
        if len(found) % 2:
            text = draw.choice(_SENTENCE_END.split(text))
        if _SHORTEST <= len(counter.encode(text).ids) <= workload.longest:
            found.append(text)
    return found
