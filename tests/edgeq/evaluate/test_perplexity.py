import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeq.backends import Arrays
from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import EdgeqError, UsageError
from edgeq.evaluate.data import TextFile, read_text_file
from edgeq.evaluate.perplexity import evaluate_perplexity
from edgeq.models import GenerativeAdapter, TorchDecoder


class _Tokenizer:
    """One token a character; 0 begins a text."""

    bos_token_id: int | None = 0
    eos_token_id: int | None = None

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}


def _text(content: str) -> TextFile:
    return TextFile(Path("text.txt"), content)


class _Counting:
    """Gives every token the probability 1/2 for each token that the window has in front of it."""

    def __init__(self) -> None:
        self.windows: list[list[int]] = []

    def __call__(self, feed: Arrays, /) -> Arrays:
        ids = feed["input_ids"]
        self.windows += ids.tolist()
        scores = -math.log(2) * np.arange(1, ids.shape[1])
        return {"log_probabilities": np.broadcast_to(scores, (len(ids), ids.shape[1] - 1))}


def _constant(feed: Arrays, value: float) -> Arrays:
    rows, length = feed["input_ids"].shape
    return {"log_probabilities": np.full((rows, length - 1), value, np.float32)}


def _uniform(feed: Arrays, /) -> Arrays:
    return _constant(feed, -math.log(7))


def test_a_uniform_model_has_as_many_choices_as_tokens() -> None:
    result = evaluate_perplexity(_uniform, _Tokenizer(), _text("ab cd efg"), context=4)
    assert result.value == pytest.approx(7)
    assert (result.tokens, result.windows, result.context, result.stride) == (9, 3, 4, 4)
    assert result.word_perplexity == pytest.approx(7**3)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_blocks_predict_every_token_once_and_the_last_one_is_whole(batch: int) -> None:
    score = _Counting()
    steps: list[tuple[int, int]] = []
    result = evaluate_perplexity(
        score,
        _Tokenizer(),
        _text("abcdefghij"),
        context=4,
        batch_size=batch,
        progress=lambda _, done, total: steps.append((done, total)),
    )
    as_text = ["".join(chr(c) for c in window).replace("\0", "^") for window in score.windows]
    assert as_text == ["^abcd", "defgh", "fghij"]
    seen = np.round(result.log_probabilities / -math.log(2)).astype(int)
    assert seen.tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 3, 4]
    assert steps[-1] == (3, 3)


def test_overlapping_windows_show_more_of_the_past() -> None:
    score = _Counting()
    result = evaluate_perplexity(score, _Tokenizer(), _text("abcdefgh"), context=4, stride=2)
    seen = np.round(result.log_probabilities / -math.log(2)).astype(int)
    assert seen.tolist() == [1, 2, 3, 4, 3, 4, 3, 4]
    assert len(score.windows) == 3


def test_a_short_text_is_one_window() -> None:
    score = _Counting()
    result = evaluate_perplexity(score, _Tokenizer(), _text("ab"), context=100)
    assert score.windows == [[0, 97, 98]]
    assert result.tokens == 2


def test_a_part_of_a_text_has_no_perplexity_per_word() -> None:
    result = evaluate_perplexity(_uniform, _Tokenizer(), _text("ab cd efg"), context=4, max_tokens=5)
    assert (result.tokens, result.word_perplexity) == (5, None)
    whole = evaluate_perplexity(_uniform, _Tokenizer(), _text("ab cd efg"), context=4, max_tokens=9)
    assert whole.word_perplexity is not None


def test_without_a_beginning_the_first_token_is_only_read() -> None:
    tokenizer = _Tokenizer()
    tokenizer.bos_token_id = None
    assert evaluate_perplexity(_uniform, tokenizer, _text("abcd"), context=9).tokens == 3
    tokenizer.eos_token_id = 5
    assert evaluate_perplexity(_uniform, tokenizer, _text("abcd"), context=9).tokens == 4


@pytest.mark.parametrize(("probability", "found"), [(-1e4, "-10000"), (math.nan, "nan"), (-math.inf, "-inf")])
def test_a_broken_model_has_no_perplexity(probability: float, found: str) -> None:
    """JSON has no infinity, and NaN would pass every limit: a model that gives either is refused, wherever it does."""

    def broken(feed: Arrays, /) -> Arrays:
        scores = _uniform(feed)["log_probabilities"]
        scores[feed["input_ids"][:, 1:] == ord("d")] = probability
        return {"log_probabilities": scores}

    with pytest.raises(EdgeqError, match=f"log-probability of {found}, of which no perplexity can be computed"):
        evaluate_perplexity(broken, _Tokenizer(), _text("abcdabc"), context=1)


def test_words_without_an_end_have_no_perplexity() -> None:
    """A text without white space is one word, however long: its perplexity per word is beyond all numbers."""
    found = evaluate_perplexity(_uniform, _Tokenizer(), _text("ab" * 400), context=9)
    assert found.word_perplexity is None
    assert math.isfinite(found.value)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"context": 0}, "context 0"),
        ({"context": 4, "stride": 5}, "stride 5"),
        ({"context": 4, "stride": 0}, "stride 0"),
        ({"context": 4, "batch_size": 0}, "batch 0"),
        ({"context": 4, "max_tokens": 0}, "found 0"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, int], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        evaluate_perplexity(_uniform, _Tokenizer(), _text("abcd"), **options)


def test_a_text_of_one_token() -> None:
    tokenizer = _Tokenizer()
    tokenizer.bos_token_id = None
    with pytest.raises(UsageError, match="too short"):
        evaluate_perplexity(_uniform, tokenizer, _text("a"), context=4)


def test_reading_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("zwei\nWörter\n", encoding="utf-8")
    assert read_text_file(tmp_path / "a.txt").content == "zwei\nWörter\n"
    (tmp_path / "b.txt").write_bytes(b"W\xf6rter")
    (tmp_path / "c.txt").write_text(" \n")
    for name, found in (("b", "not UTF-8"), ("c", "is empty"), ("d", "does not exist")):
        with pytest.raises(UsageError, match=found):
            read_text_file(tmp_path / f"{name}.txt")


def test_real_models_follow_the_loss_of_transformers(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2()
    text = _text("the cat sat over the lazy dog " * 6)
    values = {}
    compress_model(source, tmp_path / "w8", recipe="ptq-w8a8")
    for folder in (source, tmp_path / "w8"):
        checkpoint = load_checkpoint(folder)
        assert isinstance(checkpoint.adapter, GenerativeAdapter)
        model = TorchLogProbabilities(TorchDecoder(checkpoint.model, checkpoint.adapter).score)
        context = checkpoint.adapter.max_positions
        one, many = (
            evaluate_perplexity(model, checkpoint.tokenizer, text, context=context, batch_size=batch)
            for batch in (1, 4)
        )
        assert one.value == pytest.approx(many.value, rel=1e-4)
        values[folder.name] = one
    model = transformers.GPT2LMHeadModel.from_pretrained(source).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    ids = torch.tensor([[0, *tokenizer(text.content)["input_ids"]]])
    first = ids[:, :34]
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(first[:, :-1]).logits[0], first[0, 1:])
    got = values[source.name]
    assert got.tokens == ids.shape[1] - 1
    assert float(-got.log_probabilities[:33].mean()) == pytest.approx(float(loss), rel=1e-3)
    assert values["w8"].value == pytest.approx(got.value, rel=0.2)
