"""Texts that join and leave a running batch give the tokens that each gives alone."""

import random

import pytest

import edgeq
from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import ONE_BEAM
from edgeq.targets.runtime.generation_batch import GenerationBatch
from edgeq.targets.runtime.sampling import Sampling

PROMPTS = [[5, 80, 200, 17, 45, 6, 99, 3, 120, 121], [9], [250, 251, 3], [30, 31] * 20, [7, 8], [11] * 9, [60, 61, 62]]


@pytest.fixture(scope="module")
def bundle(gpt2_bundle):
    return edgeq.load(gpt2_bundle, threads=2)


def _options(number):
    sampling = Sampling(temperature=1.2, top_k=30, seed=number) if number % 2 else None
    return {"max_new_tokens": 4 + 5 * number, "sampling": sampling, "ignore_end": number % 3 == 0}


@pytest.fixture(scope="module")
def alone(bundle):
    return [bundle.generate([prompt], **_options(n)).results()[0] for n, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_texts_that_come_at_any_time_give_what_each_gives_alone(bundle, alone, size):
    chance = random.Random(size)  # noqa: S311
    batch = GenerationBatch(bundle, size=size)
    left, numbers, pieces = list(range(len(PROMPTS))), {}, {}
    while left or pieces.keys() != numbers.keys() or not all(made[-1].finish for made in pieces.values()):
        if left and chance.random() < 0.4:
            prompt = left.pop(0)
            numbers[batch.add(PROMPTS[prompt], **_options(prompt))] = prompt
        piece = batch.next()
        if piece is not None:
            pieces.setdefault(piece.prompt, []).append(piece)
    for number, prompt in numbers.items():
        made, expected = batch.result(number), alone[prompt]
        assert [piece.token for piece in pieces[number]] == made.ids == expected.ids
        assert (made.text, made.finish, made.prompt_tokens) == (expected.text, expected.finish, expected.prompt_tokens)
        assert [piece.finish for piece in pieces[number]] == [""] * (len(made.ids) - 1) + [made.finish]
    assert batch.next() is None


def test_many_prompts_of_a_call_take_the_places_of_complete_ones(bundle, alone):
    """A long text and many short ones, two together: the short ones follow each other beside the long one."""
    order = [6, 0, 1, 2]
    batch = GenerationBatch(bundle, size=2)
    numbers = [batch.add(PROMPTS[n], **_options(n)) for n in order]
    seen = []
    while (piece := batch.next()) is not None:
        if not seen or seen[-1] != piece.prompt:
            seen.append(piece.prompt)
    assert [batch.result(number).ids for number in numbers] == [alone[n].ids for n in order]
    last = {number: len(seen) - 1 - seen[::-1].index(number) for number in numbers}
    assert last[numbers[0]] > last[numbers[1]] > 0
    assert seen.index(numbers[2]) < last[numbers[0]]


def test_a_text_that_is_dropped_changes_nothing_for_the_others(bundle, alone):
    batch = GenerationBatch(bundle, size=3)
    numbers = [batch.add(PROMPTS[n], **_options(n)) for n in (3, 4, 5, 6)]
    for _ in range(8):  # in the middle of a round: two of three have shown their token
        batch.next()
    batch.drop(numbers[0])
    with pytest.raises(UsageError, match=f"there is no text {numbers[0]}; it was dropped"):
        batch.result(numbers[0])
    again = batch.add(PROMPTS[2], **_options(2))
    assert again == numbers[0]
    while batch.next() is not None:
        pass
    for number, prompt in zip([*numbers[1:], again], (4, 5, 6, 2), strict=True):
        assert batch.result(number).ids == alone[prompt].ids
        batch.drop(number)
    waiting = [batch.add(PROMPTS[n], **_options(n)) for n in (0, 1, 2, 4, 5)]
    batch.next()
    batch.drop(waiting[4])
    batch.drop(waiting[3])
    assert batch.add(PROMPTS[6], **_options(6)) in (waiting[3], waiting[4])
    while batch.next() is not None:
        pass
    assert [batch.result(number).ids for number in waiting[:3]] == [alone[n].ids for n in (0, 1, 2)]


def test_a_text_that_is_refused_leaves_the_others_alone(bundle, alone):
    batch = GenerationBatch(bundle, size=2)
    number = batch.add(PROMPTS[3], **_options(3))
    batch.next()
    for prompt, options, message in (
        ([], {}, "prompt 1 is empty"),
        ([1] * 151, {}, "has 151 tokens"),
        ([5], {"max_new_tokens": -1}, "max_new_tokens must be"),
        ([5], {"stop": [""]}, "stop must be a list of texts"),
        ([283], {}, r"prompt 1 holds 283; ids lie in"),
    ):
        with pytest.raises(UsageError, match=message):
            batch.add(prompt, **options)
    while batch.next() is not None:
        pass
    assert batch.result(number).ids == alone[3].ids


def test_an_encoder_decoders_texts_join_too(bart_bundle):
    bundle = edgeq.load(bart_bundle)
    sampling = Sampling(temperature=0)
    sources = [[5, 6, 7, 8, 9], [10, 11], [12] * 7, [5, 6]]
    options = {"max_new_tokens": 9, "sampling": sampling}
    alone = [bundle.rewrite([source], beams=ONE_BEAM, **options)[0].ids for source in sources]
    assert [made.ids for made in bundle.rewrite(sources, beams=ONE_BEAM, batch=2, **options)] == alone
    batch = GenerationBatch(bundle, size=2)
    numbers = [batch.add(source, **options) for source in sources]
    while batch.next() is not None:
        pass
    assert [batch.result(number).ids for number in numbers] == alone


def test_a_batch_needs_a_bundle_that_makes_text(host_bundle, bundle):
    with pytest.raises(UsageError, match="generates no text"):
        GenerationBatch(edgeq.load(host_bundle), size=2)
    with pytest.raises(UsageError, match=r"batch must be an integer in 1\.\.1024, found 0"):
        GenerationBatch(bundle, size=0)
