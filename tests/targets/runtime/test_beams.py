"""Beam search on its own: the same logits give the texts that transformers finds."""

import numpy as np
import pytest
from edgeq.targets.runtime.rules import Rules, forced_tokens

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime.beams import Beams, BeamSearch

START, LIMIT = 2, 9
SOURCE = [[7, 80, 12, 33, 190, 4]]


@pytest.fixture(scope="module")
def model(make_bart):
    import transformers

    return transformers.BartForConditionalGeneration.from_pretrained(make_bart(seed=3)).eval()


def _searched(model, beams, **options):
    """Our search, with the logits of the torch model for whole prefixes."""
    import torch

    search = BeamSearch(beams, limit=LIMIT, **options)
    prefixes, steps = [[START]] * beams.count, 0
    while not search.done:
        with torch.inference_mode():
            ids = torch.tensor(prefixes)
            logits = model(input_ids=torch.tensor(SOURCE * beams.count), decoder_input_ids=ids).logits[:, -1]
        parents = search.advance(logits.numpy())
        prefixes = [[*prefixes[row], token] for row, token in zip(parents, search.last_tokens, strict=True)]
        steps += 1
    return search, steps


SETTINGS = [
    ({"min_new_tokens": 6}, 1.0),
    ({"no_repeat_ngram_size": 1}, 1.0),
    ({"no_repeat_ngram_size": 2, "min_new_tokens": 3}, 1.0),
    ({}, 1.7),
    ({"no_repeat_ngram_size": 3, "min_new_tokens": 5}, 0.6),
]


@pytest.mark.parametrize(("rules", "penalty"), SETTINGS)
def test_rules_and_penalty_are_those_of_transformers(model, rules, penalty):
    import torch

    short = "min_new_tokens" in rules  # ends come early where short texts are favoured
    beams, ends = Beams(3, -1.0 if short else 1.5), [*range(2, 150 if short else 60)]
    found, _ = _searched(
        model, beams, end_ids=ends, forced_first=0, prefix=[START], rules=Rules(**rules), repetition_penalty=penalty
    )
    plain, _ = _searched(model, beams, end_ids=ends, forced_first=0)
    assert found.finished[0].ids != plain.finished[0].ids
    expected = model.generate(
        torch.tensor(SOURCE), num_beams=3, length_penalty=beams.length_penalty, max_new_tokens=LIMIT, eos_token_id=ends,
        forced_bos_token_id=0, forced_eos_token_id=None, decoder_start_token_id=START, repetition_penalty=penalty,
        return_dict_in_generate=True, output_scores=True, do_sample=False, **rules,
    )  # fmt: skip
    text = found.finished[0]
    assert text.ids == expected.sequences[0, 1 : len(text.ids) + 1].tolist()
    assert text.score == pytest.approx(float(expected.sequences_scores[0]), abs=1e-4)


def test_a_search_without_any_token_left_is_a_sentence():
    search = BeamSearch(Beams(2), end_ids=[], limit=9, rules=Rules(no_repeat_ngram_size=1))
    for _ in range(3):
        search.advance(np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match="no token is left that may come next"):
        search.advance(np.zeros((2, 3), np.float32))


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
def test_texts_and_scores_are_those_of_transformers(model, beams, ends, forced):
    import torch

    ends = [*ends, START] if START not in ends else list(ends)
    found, _ = _searched(model, beams, end_ids=ends, forced_first=forced[0], forced_last=forced[1])
    expected = model.generate(
        torch.tensor(SOURCE),
        num_beams=beams.count,
        num_return_sequences=beams.count,
        length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping,
        max_new_tokens=LIMIT,
        eos_token_id=ends,
        forced_bos_token_id=forced[0],
        forced_eos_token_id=forced[1],
        decoder_start_token_id=START,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
    )
    assert len(found.finished) == beams.count
    for text, ids, score in zip(found.finished, expected.sequences[:, 1:], expected.sequences_scores, strict=True):
        assert text.ids == ids[: len(text.ids)].tolist()
        assert set(ids[len(text.ids) :].tolist()) <= {1}  # filled up with padding
        assert text.score == pytest.approx(float(score), abs=1e-4)


def test_early_stopping_needs_fewer_steps(model):
    ends = range(3, 60)
    steps = {stop: _searched(model, Beams(3, 2.5, stop), end_ids=ends)[1] for stop in (True, False, "never")}
    assert steps[True] < steps["never"] == LIMIT


def test_of_equal_texts_the_first_is_taken():
    search = BeamSearch(Beams(2), end_ids=[], limit=2)
    assert search.advance(np.zeros((2, 5), np.float32)) == [0, 0]
    assert search.last_tokens == [0, 1]
    assert search.advance(np.zeros((2, 5), np.float32)) == [0, 0]
    assert [text.ids for text in search.finished] == [[0, 0], [0, 1]]
    assert search.done


def test_the_last_token_goes_before_the_first():
    assert forced_tokens(1, first=0, last=2) == {1: 2}
    assert forced_tokens(4, first=0, last=2) == {1: 0, 4: 2}
    assert forced_tokens(4, first=None, last=None) == {}


def test_logits_that_are_no_numbers_are_a_sentence():
    with pytest.raises(FormatError, match="logits are not finite"):
        BeamSearch(Beams(2), end_ids=[], limit=2).advance(np.full((2, 5), np.nan, np.float32))


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
