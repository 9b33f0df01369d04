"""Which tokens may come next, against transformers' own processors."""

import pytest
from hypothesis import given, strategies

from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.rules import NextToken, Rules
from edgeq.targets.runtime.sampling import GREEDY, Sampling
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, GenerationSettings, changed_sampling

TOKENS = strategies.lists(strategies.integers(0, 4), max_size=14)


def _next(*, prefix=(), ends=(), **rules):
    return NextToken(Rules(**rules), prefix=prefix, end_ids=ends, forced={})


@given(TOKENS.filter(len), TOKENS, strategies.integers(1, 4))
def test_no_sequence_comes_twice_as_in_transformers(prefix, made, size):
    import torch
    from transformers import NoRepeatNGramLogitsProcessor

    scores = NoRepeatNGramLogitsProcessor(size)(torch.tensor([[*prefix, *made]]), torch.zeros(1, 5))
    expected = set(torch.isinf(scores[0]).nonzero()[:, 0].tolist())
    assert set(_next(prefix=prefix, no_repeat_ngram_size=size).banned(made)) == expected


@given(strategies.integers(0, 6), TOKENS)
def test_no_text_ends_too_early(least, made):
    found = _next(prefix=[1, 2], ends={4, 3}, min_new_tokens=least).banned(made)
    assert found == ([3, 4] if len(made) < least else [])


def test_forced_tokens_go_by_length():
    forced = NextToken(Rules(), prefix=[2], end_ids=[], forced={1: 7, 3: 9})
    assert [forced.forced([0] * n) for n in range(4)] == [7, None, 9, None]


def test_lengths_of_settings_count_the_prefix_and_those_of_new_tokens_do_not():
    total = GenerationSettings(min_length=10, max_length=30)
    assert total.rules(4).min_new_tokens == 6
    assert total.rules(12).min_new_tokens == 0
    assert total.most_new_tokens(4, default=99) == 26
    assert total.most_new_tokens(40, default=99) == 1
    new = GenerationSettings(min_length=10, max_length=30, min_new_tokens=2, max_new_tokens=5)
    assert (new.rules(4).min_new_tokens, new.most_new_tokens(4, default=99)) == (2, 5)
    assert (PLAIN_SETTINGS.rules(4), PLAIN_SETTINGS.most_new_tokens(4, default=99)) == (Rules(), 99)


def test_what_a_caller_gives_goes_before_the_settings():
    settings = GenerationSettings(min_new_tokens=2, no_repeat_ngram_size=3, beams=Beams(4))
    assert settings.rules(1, min_new_tokens=0, no_repeat_ngram_size=5) == Rules(0, 5)
    drawn = Sampling(temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=1.2)
    assert changed_sampling(drawn) == drawn
    assert changed_sampling(drawn, temperature=0) == Sampling(repetition_penalty=1.2)
    assert changed_sampling(drawn, top_k=0, seed=3) == Sampling(0.7, 0, 0.9, 1.2, 3)
    assert changed_sampling(GREEDY, temperature=1.0, top_p=0.5) == Sampling(temperature=1.0, top_p=0.5)
    with pytest.raises(UsageError, match="top_k has no effect at temperature 0"):
        changed_sampling(GREEDY, top_k=5)


@pytest.mark.parametrize("values", [{"min_new_tokens": -1}, {"no_repeat_ngram_size": 2.0}, {"min_new_tokens": True}])
def test_wrong_rules_are_a_sentence(values):
    with pytest.raises(UsageError, match=r"must be an integer in 0\.\."):
        Rules(**values)
