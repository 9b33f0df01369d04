"""Beam search of libedgeq: the same logits give the texts and scores that transformers finds."""

import pytest

import edgeq
from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import GenerationSettings

START, LIMIT = 2, 9
SOURCE = [7, 80, 12, 33, 190, 4]


@pytest.fixture(scope="module")
def model(bart_bundle, as_transformers_model):
    return as_transformers_model(edgeq.load(bart_bundle, threads=1), SOURCE)


@pytest.fixture
def rewritten(bart_bundle, copy_of):
    """Returns a function that searches with a bundle that has other tokens that end and are forced."""
    import dataclasses

    from edgeq.targets.runtime.manifest import read_manifest, write_manifest

    folder = copy_of(bart_bundle)

    def search(beams, ends, forced, *, penalty=1.0, settings=GenerationSettings(), **rules):
        manifest = read_manifest(folder)
        source = dataclasses.replace(manifest.generation.source, forced_first=forced[0], forced_last=forced[1])
        generation = dataclasses.replace(
            manifest.generation, source=source, end_ids=tuple(ends), settings=settings
        )
        write_manifest(folder, dataclasses.replace(manifest, generation=generation))
        options = {"max_new_tokens": LIMIT, "beams": beams, "sampling": Sampling(repetition_penalty=penalty), **rules}
        (result,) = edgeq.load(folder, threads=1).rewrite([SOURCE], **options)
        return result

    return search


def expected(model, beams, ends, forced, *, penalty=1.0, **rules):
    import torch

    found = model.generate(
        torch.tensor([[START]]), num_beams=beams.count, length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping, max_new_tokens=LIMIT, eos_token_id=list(ends), pad_token_id=1,
        forced_bos_token_id=forced[0], forced_eos_token_id=forced[1], repetition_penalty=penalty, do_sample=False,
        return_dict_in_generate=True, output_scores=True, **rules,
    )  # fmt: skip
    return found.sequences[0, 1:].tolist(), float(found.sequences_scores[0])


def check(result, wanted):
    ids, score = wanted
    assert result.ids == ids[: len(result.ids)]
    assert set(ids[len(result.ids) :]) <= {1}  # filled up with padding
    assert result.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("beams", "ends", "forced"),
    [
        (Beams(3), range(3, 30), (None, None)),
        (Beams(4, 0.0), range(40, 90), (None, None)),
        (Beams(3, 2.5, early_stopping=True), range(3, 60), (None, None)),
        (Beams(3, 1.5, early_stopping="never"), range(3, 60), (None, None)),
        (Beams(2, -1.0, early_stopping="never"), range(100, 120), (0, None)),
        (Beams(5, 2.0), range(200, 230), (0, 2)),
        (Beams(3, 1.0), [2], (None, 2)),
    ],
)
def test_texts_and_scores_are_those_of_transformers(model, rewritten, beams, ends, forced):
    ends = [*ends, START] if START not in ends else list(ends)
    check(rewritten(beams, ends, forced), expected(model, beams, ends, forced))


@pytest.mark.parametrize(
    ("rules", "penalty"),
    [
        ({"min_new_tokens": 6}, 1.0),
        ({"no_repeat_ngram_size": 1}, 1.0),
        ({"no_repeat_ngram_size": 2, "min_new_tokens": 3}, 1.0),
        ({}, 1.7),
        ({"no_repeat_ngram_size": 3, "min_new_tokens": 5}, 0.6),
    ],
)
def test_rules_and_penalty_are_those_of_transformers(model, rewritten, rules, penalty):
    short = "min_new_tokens" in rules  # ends come early where short texts are favoured
    beams, ends = Beams(3, -1.0 if short else 1.5), [*range(2, 150 if short else 60)]
    check(
        rewritten(beams, ends, (0, None), penalty=penalty, **rules),
        expected(model, beams, ends, (0, None), penalty=penalty, **rules),
    )


@pytest.mark.parametrize("renormalizes", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.6])
def test_banned_tokens_and_what_is_left_counts_as_all(model, rewritten, renormalizes, penalty):
    """Opus-mt's files ban the padding token and make probabilities of what is left."""
    beams, ends = Beams(4, 1.0), [*range(200, 230)]
    free = rewritten(beams, ends, (None, None), penalty=penalty).ids
    assert free[0] not in ends  # transformers keeps out no token that ends a text
    settings = GenerationSettings(banned_ids=(free[0], 1), renormalize_logits=renormalizes)
    rules = {"bad_words_ids": [[free[0]], [1]], "renormalize_logits": renormalizes}
    found = rewritten(beams, ends, (None, None), penalty=penalty, settings=settings)
    assert found.ids[0] != free[0]
    check(found, expected(model, beams, ends, (None, None), penalty=penalty, **rules))


def test_the_last_token_goes_before_the_first(bart_bundle):
    """A text of one token is the one that must be last."""
    bundle = edgeq.load(bart_bundle)
    assert [result.ids for result in bundle.rewrite([SOURCE, [5]], max_new_tokens=1)] == [[2], [2]]
    assert bundle.rewrite([SOURCE], max_new_tokens=1, beams=Beams(2))[0].ids == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, r"beams must be an integer in 1\.\.64"),
        ({"count": 65}, r"beams must be an integer in 1\.\.64"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number"),
        ({"length_penalty": "1"}, "length_penalty must be a number"),
        ({"early_stopping": 1}, "early_stopping must be"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or 'never'"),
    ],
)
def test_wrong_options_are_a_sentence(options, message):
    with pytest.raises(UsageError, match=message):
        Beams(**options)
