"""Which columns of a table are texts and which is the answer, by their names; no column is lost in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from edgeq.errors import UsageError

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("#1 String", "#2 String"),
    ("text1", "text2"),
)
"""Two texts that belong together, as GLUE and data sets of the hub call them."""
TEXTS = ("sentence", "text")
SCORES = ("score",)
LABELS = ("label", "gold_label", "is_duplicate", "Quality")
_IGNORED = frozenset(
    (
        *("", "Unnamed: 0", "id", "idx", "index", "guid", "old_index", "qid1", "qid2", "#1 ID", "#2 ID"),
        *("genre", "filename", "year", "source1", "source2", "promptID", "pairID", "captionID", "label_text"),
        *("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"),
        *(f"label{number}" for number in range(1, 6)),
    )
)
"""Columns that number rows, say where they are from, or repeat a text or an answer in another form."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that count.

    Attributes:
        first: The text, or the first of two.
        second: The second of two texts, or None.
        target: The score or label, or None where there is none.
    """

    first: str
    second: str | None
    target: str | None

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.first,) if self.second is None else (self.first, self.second)


def find_columns(names: Collection[str], source: str, *, targets: Sequence[str] = (*SCORES, *LABELS)) -> Columns:
    """Tells what each column is.

    Args:
        names: The columns' names.
        source: The file or data set, for messages.
        targets: Columns that may hold the answer.

    Raises:
        UsageError: If there is no text, two columns could be meant, or a column has a name that says nothing.
    """
    pairs = [pair for pair in PAIRS if all(name in names for name in pair)]
    of_pairs = {name for pair in pairs for name in pair}
    texts = [(name,) for name in TEXTS if name in names and name not in of_pairs]
    chosen: list[tuple[str, ...]] = [*pairs, *texts]
    answers = [name for name in targets if name in names]
    if not chosen:
        raise UsageError(
            f"{source} should have columns sentence (or sentence1 and sentence2) and {targets[0]}, "
            f"found {', '.join(names)}"
        )
    for kind, candidates in (("texts", [" and ".join(one) for one in chosen]), ("answers", answers)):
        if len(candidates) > 1:
            raise UsageError(f"{source} has several columns of {kind} ({'; '.join(candidates)}); keep those that count")
    used = {*chosen[0], *answers}
    other = [name for name in names if name not in used and name not in _IGNORED]
    if other:
        raise UsageError(
            f"{source} has a column {other[0]!r}, and nothing says what it is for; take it out, or call it by one of "
            f"the known names: texts {' or '.join(TEXTS)}, pairs {', '.join(map(' and '.join, PAIRS[:4]))}, answers "
            f"{', '.join((*SCORES, *LABELS))}"
        )
    second = chosen[0][1] if len(chosen[0]) > 1 else None
    return Columns(chosen[0][0], second, answers[0] if answers else None)
