"""Texts in, other texts out: what an encoder-decoder writes of what it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import ONE_BEAM, Beams, BeamSearch
from edgeq.targets.runtime.rules import NextToken, Rules, forced_tokens
from edgeq.targets.runtime.sampling import Sampler, Sampling
from edgeq.targets.runtime.schema import ENCODE, GenerationInfo, SourceInfo
from edgeq.targets.runtime.source_decoder import SourceDecoder
from edgeq.targets.runtime.tokenizer import TOKENIZER_FILE, encode, load_tokenizer

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

DEFAULT_NEW_TOKENS = 128
"""Most tokens of a text where neither the caller nor the model says."""
_START = 1
"""Tokens before the first new one: the one that starts a text."""


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
        UsageError: If the bundle reads no source, or a text or an option makes no sense.
    """
    settings = bundle.generation.settings
    if beams is None:
        beams = settings.beams if sampling is None or sampling.temperature == 0 else ONE_BEAM
    wanted = settings.most_new_tokens(_START, default=DEFAULT_NEW_TOKENS) if max_new_tokens is None else max_new_tokens
    sampling = sampling or settings.sampling
    rules = settings.rules(_START, min_new_tokens=min_new_tokens, no_repeat_ngram_size=no_repeat_ngram_size)
    if beams.count > 1 and sampling.temperature != 0:
        raise UsageError("beam search takes the likeliest texts; ask for temperature 0, or for 1 beam")
    return _Writer(bundle, wanted, sampling, beams, rules, ignore_end, batch).write(texts)


@dataclasses.dataclass
class _Text:
    """One source at work."""

    text: str | None
    source: list[int]
    ids: list[int] = dataclasses.field(default_factory=list)
    score: float | None = None


class _Writer:
    """Checked options, and the loops."""

    def __init__(
        self,
        bundle: Bundle,
        max_new_tokens: int,
        sampling: Sampling,
        beams: Beams,
        rules: Rules,
        ignore_end: bool,
        batch: int,
    ) -> None:
        for name, value in (("max_new_tokens", max_new_tokens), ("batch", batch)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} must be an integer of at least 1, found {value!r}")
        self._bundle = bundle
        self._source: SourceInfo = source_of(bundle)
        self._generation: GenerationInfo = bundle.generation
        self._asked, self._batch = int(max_new_tokens), int(batch)
        # The token that starts a text takes a slot, the last token that is made none.
        self._limit = min(self._asked, self._generation.context)
        self._end_ids = frozenset(() if ignore_end else self._generation.end_ids)
        self._sampling, self._beams, self._rules = sampling, beams, rules
        self._tokenizer = load_tokenizer(bundle.path) if (bundle.path / TOKENIZER_FILE).is_file() else None

    def write(self, sources: Sequence[str | Sequence[int]]) -> list[Rewritten]:
        texts = [self._checked(number, source) for number, source in enumerate(sources)]
        if not texts:
            raise UsageError("there is no text; give at least one")
        if self._beams.count > 1:
            for text in texts:
                self._search(text)
        else:
            for start in range(0, len(texts), self._batch):
                self._write_together(texts[start : start + self._batch])
        return [self._result(text) for text in texts]

    def _checked(self, number: int, given: str | Sequence[int]) -> _Text:
        what = f"text {number + 1}"
        if isinstance(given, int | np.integer):
            raise UsageError(f"{what} must be a text or a list of token ids, found {given!r}")
        if isinstance(given, str):
            if not given.strip():
                raise UsageError(f"{what} is empty; give at least one word")
            tokenizer = self._tokenizer or load_tokenizer(self._bundle.path)
            text, ids = given, encode(tokenizer, given, what)
        else:
            text, ids = None, [int(token) for token in given]
            if not ids:
                raise UsageError(f"{what} is empty; give at least one token")
        most = self._bundle.manifest.functions[ENCODE].inputs[0].maximum or 0
        if min(ids) < 0 or max(ids) > most:
            raise UsageError(f"{what} holds an id outside the vocabulary; ids lie in 0..{most}")
        if len(ids) > self._source.context:
            raise UsageError(
                f"{what} has {len(ids)} tokens, the model reads at most {self._source.context}; shorten or split it"
            )
        return _Text(text, ids)

    def _write_together(self, texts: list[_Text]) -> None:
        """Greedy or by chance, all texts of a batch at once."""
        forced = forced_tokens(self._limit, first=self._source.forced_first, last=self._source.forced_last)
        start = [self._source.start_id]
        following = NextToken(self._rules, prefix=start, end_ids=self._end_ids, forced=forced)
        samplers = [Sampler(self._sampling, start) for _ in texts]
        decoder = SourceDecoder(self._bundle, [text.source for text in texts])
        newest = [start for _ in texts]
        while texts:
            for text, sampler, logits in zip(texts, samplers, decoder.append(newest), strict=True):
                token = following.forced(text.ids)
                if token is None:
                    token = sampler.choose(logits, banned=following.banned(text.ids))
                else:
                    sampler.take(token)
                text.ids.append(token)
            rows = [row for row, text in enumerate(texts) if not self._has_ended(text)]
            if 0 < len(rows) < len(texts):
                decoder.keep(rows)
            texts, samplers = [texts[row] for row in rows], [samplers[row] for row in rows]
            newest = [[text.ids[-1]] for text in texts]

    def _search(self, text: _Text) -> None:
        """Beam search: the beams of one text are the batch."""
        source, count = self._source, self._beams.count
        search = BeamSearch(
            self._beams,
            end_ids=self._end_ids,
            limit=self._limit,
            forced_first=source.forced_first,
            forced_last=source.forced_last,
            prefix=[source.start_id],
            rules=self._rules,
            repetition_penalty=self._sampling.repetition_penalty,
        )
        decoder = SourceDecoder(self._bundle, [text.source], beams=count)
        newest = [source.start_id] * count
        while not search.done:
            decoder.reorder(search.advance(decoder.append([[token] for token in newest])))
            newest = search.last_tokens
        best = search.finished[0]
        text.ids, text.score = best.ids, best.score

    def _has_ended(self, text: _Text) -> bool:
        return text.ids[-1] in self._end_ids or len(text.ids) == self._limit

    def _result(self, text: _Text) -> Rewritten:
        finish = "length" if self._limit == self._asked else "context"
        if text.ids[-1] in self._end_ids:
            finish = "end"
        generated = ""
        if self._tokenizer is not None:
            generated = str(self._tokenizer.decode(text.ids, skip_special_tokens=True))
        return Rewritten(text.text, len(text.source), generated, text.ids, finish, text.score)


def source_of(bundle: Bundle) -> SourceInfo:
    """Returns what a bundle reads.

    Raises:
        UsageError: If it reads no source.
    """
    source = bundle.generation.source
    if source is None:
        raise UsageError(f"bundle {bundle.path} continues texts; use `edgeq generate`")
    return source
