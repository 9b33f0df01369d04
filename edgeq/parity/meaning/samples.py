"""Texts that show what a model's folder means: scripts, case, pairs, prompts, and a text that is too long."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

LONGEST_CHECKED = 2048
"""Models that read more tokens than this are not given a text that is too long: it would take minutes."""
_LONG = "The river rises in the hills, runs past seven villages and reaches the sea after ninety miles. "


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a library and a bundle are given.

    Attributes:
        what: What reports call it.
        text: The text, or a pair of texts that the model reads together.
        prompt_name: Which of the model's prompts is asked for; None leaves it to the model.
        is_question: Whether the pair is a question and what it is about.
        may_refuse: Whether a bundle may refuse it with a sentence. A wrong answer is a breach all the same.
    """

    what: str
    text: str | tuple[str, str]
    prompt_name: str | None = None
    is_question: bool = False
    may_refuse: bool = False


TEXTS = (
    Sample("an English text", "A man is playing the guitar on a small stage."),
    Sample("a text in capitals, with digits", "THE Meeting on 24.12.2025 costs $1,250.50 (don't be late)!"),
    Sample("accents and combining marks", "Über das Cafe\u0301 in Besançon: naïve Façade, smørrebrød."),
    Sample("Chinese and Japanese", "今天天气很好，我们去公园。東京タワーは高い。"),
    Sample("Cyrillic and Greek", "Москва — столица России. Η θάλασσα είναι γαλάζια."),
    Sample("Arabic and Hindi", "الكتاب على الطاولة. किताब मेज़ पर है।"),
    Sample("emoji and odd spaces", "  so   good \U0001f44d\U0001f3fd\u00a0\u200bwow  "),
    Sample("an empty text", "", may_refuse=True),
)
PAIRS = (
    Sample("a pair", ("The train leaves at nine.", "Trains to the airport run every hour.")),
    Sample("a pair of unequal texts", ("Yes.", "The museum is closed on Mondays, and the bridge will be repaired.")),
)

QUESTIONS = tuple(
    Sample(what, (question, context), is_question=True)
    for what, question, context in (
        ("a question", "Where does it rise?", "The river rises in the hills and reaches the sea at a harbour."),
        ("a question about a name", "Who wrote it?", "The letter was written by Marie Skłodowska-Curie in 1906."),
        ("a question in Chinese", "谁去公园？", "今天天气很好，我们去公园。"),
    )
)


def masked(mask: str) -> tuple[Sample, ...]:
    """Returns texts with one token left out, as the model's mask says it."""
    return (
        Sample("a masked word", f"The river rises in the {mask}."),
        Sample("a masked first word", f"{mask} is the capital of the country."),
        Sample("a masked word before punctuation, among accents", f"Über das Cafe\u0301 in {mask}, naïve!"),
    )


def prompted(names: Sequence[str]) -> tuple[Sample, ...]:
    """Returns one sample for each prompt of a model."""
    return tuple(
        Sample(f"a text with the prompt {name!r}", "How do I repair a bridge over a river?", name) for name in names
    )


def too_long(tokenizer: Any, longest: int | None) -> tuple[Sample, ...]:
    """Returns a text of more tokens than the model reads; none if there is no limit, or a very large one.

    Args:
        tokenizer: A ``transformers`` tokenizer.
        longest: Most tokens of a text, or None.
    """
    if longest is None or longest > LONGEST_CHECKED:
        return ()
    tokens = max(1, len(tokenizer(_LONG, add_special_tokens=False)["input_ids"]))
    # The last sentence differs, so that it matters which side is cut.
    text = _LONG * (longest // tokens + 2) + "At its mouth lies an old harbour."
    return (Sample("a text that is too long", text, may_refuse=True),)
