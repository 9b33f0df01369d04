"""ROUGE-1, -2 and -L F1 of a summary against several references, the best of which counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(shared: int, summary: int, reference: int) -> float:
    return 2 * shared / (summary + reference) if shared else 0.0


def _ngram_f1(summary: list[str], reference: list[str], n: int) -> float:
    def counts(words: list[str]) -> Counter[tuple[str, ...]]:
        return Counter(zip(*(words[i:] for i in range(n)), strict=False))

    left, right = counts(summary), counts(reference)
    return _f1((left & right).total(), left.total(), right.total())


def _longest_common(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for j, other in enumerate(right, 1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def rouge(summary: str, references: Sequence[str]) -> dict[str, float]:
    """Returns F1 of unigrams, bigrams and the longest common subsequence, 0 to 1.

    Words are runs of lower-cased letters and digits, without stemming. As SciTLDR's authors do, the
    reference with the highest figure counts, for each figure on its own.

    Args:
        summary: The text to be judged.
        references: One or more reference summaries.
    """
    words = _words(summary)
    best = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    for reference in map(_words, references):
        figures = {
            "rouge1": _ngram_f1(words, reference, 1),
            "rouge2": _ngram_f1(words, reference, 2),
            "rougeL": _f1(_longest_common(words, reference), len(words), len(reference)),
        }
        best = {name: max(best[name], figure) for name, figure in figures.items()}
    return best
