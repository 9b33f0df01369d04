"""Choosing tokens: greedy texts are those of transformers, and drawn ones follow the probabilities of its filters."""

import math

import numpy as np
import pytest

import edgeq
from edgeq.errors import UsageError
from edgeq.targets.runtime.sampling import Sampling

PROMPT = [30, 31, 7, 80, 5]
DRAWS = 1500


@pytest.fixture(scope="module")
def bundle(gpt2_bundle):
    return edgeq.load(gpt2_bundle, threads=1)


@pytest.fixture(scope="module")
def model(bundle, as_transformers_model):
    return as_transformers_model(bundle)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    ],
)
def test_greedy_texts_are_those_of_transformers(bundle, model, options):
    import torch

    expected = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=14, do_sample=False, eos_token_id=2, pad_token_id=1, **options
    )[0, len(PROMPT) :].tolist()
    own = dict(options)
    penalty = own.pop("repetition_penalty", 1.0)
    sampling = Sampling(repetition_penalty=penalty)
    found = bundle.generate([PROMPT], max_new_tokens=14, sampling=sampling, **own).results()[0].ids
    assert found == expected[: len(found)]


def frequencies(bundle, sampling, *, draws=DRAWS):
    """How often each token follows the prompt, each draw with a seed of its own."""
    counts = np.zeros(283)
    for seed in range(draws):
        given = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.repetition_penalty, seed)
        counts[bundle.generate([PROMPT], max_new_tokens=1, sampling=given).results()[0].ids[0]] += 1
    return counts / draws


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5, top_k=40),
        Sampling(temperature=2.0, top_k=5),
        Sampling(temperature=1.0, top_p=0.6),
        Sampling(temperature=1.5, top_k=60, top_p=0.9, repetition_penalty=1.3),
    ],
)
def test_drawn_tokens_follow_the_probabilities_of_transformers(bundle, sampling):
    import torch
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    (result,) = bundle.generate([PROMPT], max_new_tokens=1, keep_logits=True).results()
    ids, logits = torch.tensor([PROMPT]), torch.from_numpy(result.logits.copy()).double()
    logits = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, logits)
    logits = TemperatureLogitsWarper(sampling.temperature)(ids, logits)
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(ids, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(ids, logits)
    wanted = torch.softmax(logits, -1)[0].numpy()
    found = frequencies(bundle, sampling)
    assert not found[wanted == 0].any()
    # Five standard deviations of each share: one wrong alarm in a million tokens.
    assert (np.abs(found - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / DRAWS) + 1 / DRAWS).all()


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others(bundle):
    def tokens(seed):
        return bundle.generate([PROMPT], max_new_tokens=30, sampling=Sampling(2.0, seed=seed)).results()[0].ids

    assert tokens(3) == tokens(3)
    assert tokens(3) != tokens(4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be a number in 0\.001\.\.1000, or 0, found -1\.0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"temperature": True}, "temperature must be"),
        ({"temperature": 1e-9}, "temperature must be"),
        ({"temperature": 1.0, "top_k": -1}, "top_k must be an integer"),
        ({"temperature": 1.0, "top_k": 2.5}, "top_k must be an integer"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be a number above 0 and at most 1"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
        ({"seed": -1}, "seed must be an integer in 0"),
        ({"seed": 1 << 63}, "seed must be"),
        ({"top_k": 5}, "top_k has no effect at temperature 0"),
        ({"top_p": 0.5}, "top_p has no effect at temperature 0"),
    ],
)
def test_wrong_values_are_a_sentence(values, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**values)
