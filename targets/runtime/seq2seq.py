"""Texts in, other texts out: what an encoder-decoder writes of what it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import ONE_BEAM, Beams
from edgeq.targets.runtime.generation_options import generation_options
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.texts import to_texts

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """What a model wrote.

    Attributes:
        text: The source; None if it was given as ids.
        tokens: Number of its tokens, special ones included.
        generated: The text that was written; empty if the bundle has no tokenizer.
        ids: Every token that was made, one that ended the text included.
        finish: Why it ended: ``end`` (the token that ends a text), ``length`` (as many tokens as were asked for) or
            ``context`` (the context is full).
        score: With beam search the text's log-probability, divided by its length to the power of the penalty.
    """

    text: str | None
    tokens: int
    generated: str
    ids: list[int]
    finish: str
    score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values, without the score where there is none."""
        table = dataclasses.asdict(self)
        if self.score is None:
            del table["score"]
        return table


def rewrite(
    bundle: Bundle,
    texts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    sampling: Sampling | None = None,
    beams: Beams | None = None,
    min_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    ignore_end: bool = False,
    batch: int = 8,
) -> list[Rewritten]:
    """Reads texts and writes others, such as summaries.

    Every text is checked before the first is run. What a text gives does not depend on the others. What is None is as
    the model's ``generation_config.json`` says, and greedy with at most 128 tokens where that says nothing.

    Args:
        bundle: A loaded bundle of an encoder-decoder.
        texts: Each a text or token ids, special ones included.
        max_new_tokens: Most tokens to make for a text; fewer if the context holds fewer.
        sampling: How tokens are chosen without beam search; with it, its repetition penalty applies. Above temperature
            0 there is no beam search unless ``beams`` asks for it, which is refused.
        beams: How beams are searched.
        min_new_tokens: Tokens to make before one may end the text.
        no_repeat_ngram_size: Make no sequence of this many tokens twice; 0 allows all.
        ignore_end: Go on after the token that ends a text.
        batch: Most texts that run together without beam search.

    Returns:
        What was written, in the order of the texts.

    Raises:
        UsageError: If the bundle reads no encoder input, or a text or an option makes no sense.
    """
    if bundle.generation.source is None:
        raise UsageError(f"bundle {bundle.path} has no encoder input; use `edgeq generate`")
    if beams is None and sampling is not None and sampling.temperature != 0:
        beams = ONE_BEAM
    options = generation_options(
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        min_new_tokens=min_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        ignore_end=ignore_end,
        batch=batch,
        beams=beams,
    )
    session = bundle.new_session()
    session.start_generation(to_texts(texts, "text"), options)
    while session.next_piece(0) is not None:
        pass
    results = []
    for number, text in enumerate(texts):
        made, given = session.generated(number), text if isinstance(text, str) else None
        results.append(Rewritten(given, made.tokens, made.text, made.ids, made.finish, made.score))
    return results
