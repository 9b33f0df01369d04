from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.backends import Arrays
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UsageError
from edgeq.evaluate.data import EvaluationSet, Example, read_evaluation_set
from edgeq.evaluate.similarity import similarities
from edgeq.evaluate.tasks import evaluate
from edgeq.formats.sentence_model import Pooling, SentenceModel
from edgeq.models import TorchEncoder

DEMO = Path(__file__).parents[3] / "benchmarks" / "data" / "demo_sts.tsv"


class _Tokenizer:
    """One token a character, between 1 and 2."""

    pad_token_id = 0
    all_special_ids = (1, 2)

    def __call__(
        self, first: str, second: str | None = None, *, max_length: int | None = None, **_: Any
    ) -> dict[str, list[int]]:
        ids = [1, *map(ord, first), 2][:max_length]
        types = [0] * len(ids)
        if second is not None:
            ids, types = ids + [ord(c) for c in second], types + [1] * len(second)
        return {"input_ids": ids, "token_type_ids": types}


def _similarity(rows: list[tuple[str, str, float]]) -> EvaluationSet:
    return EvaluationSet(Path("pairs.tsv"), "similarity", [Example(*row) for row in rows])


def _labels(rows: list[tuple[str, str]]) -> EvaluationSet:
    return EvaluationSet(
        Path("labels.tsv"), "classification", [Example(text, None, label) for text, label in rows]
    )


def _angle(feed: Arrays, /) -> Arrays:
    """Embeddings that point to the mean of their characters; those that begin and end a text do not count."""
    ids, mask, pooling_mask = feed["input_ids"], feed["attention_mask"], feed.get("pooling_mask")
    angle = ids / 100.0
    states = np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
    states[(ids < 3) | (mask == 0)] = 0
    if pooling_mask is not None:
        states[pooling_mask == 0] = 0
    return {"sentence_embedding": states.sum(axis=1)}


def test_a_perfect_order_is_a_correlation_of_one() -> None:
    data = _similarity([("AAAA", chr(65 + i) * (1 + i % 7), -float(i)) for i in range(40)])
    result = evaluate(_angle, _Tokenizer(), data, batch_size=7)
    assert (result.metric, result.count) == ("spearman", 40)
    assert result.value == pytest.approx(1.0)
    reverse = _similarity([(e.first, e.second or "", -float(e.target)) for e in data.examples])
    assert evaluate(_angle, _Tokenizer(), reverse).value == pytest.approx(-1.0)
    assert 0.5 < result.others["pearson"] < 1


def test_neither_batching_nor_padding_changes_predictions(float_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(float_checkpoint)
    encode = TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter))
    words = ["the", "cat", "sat", "quick", "brown", "fox", "good", "movie"]
    rng = np.random.default_rng(0)
    rows = [
        (" ".join(rng.choice(words, n)), " ".join(rng.choice(words, 10 - n)), float(n)) for n in range(1, 10)
    ]
    alone = evaluate(encode, checkpoint.tokenizer, _similarity(rows), batch_size=1)
    together = evaluate(encode, checkpoint.tokenizer, _similarity(rows), batch_size=18)
    np.testing.assert_allclose(alone.rows[:, 0], together.rows[:, 0], atol=1e-5)
    for (first, second, _), cosine in zip(rows, alone.rows[:, 0], strict=True):
        vectors = []
        for text in (first, second):
            tokens = checkpoint.tokenizer(text, return_tensors="np")
            states = encode({name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
            vectors.append(states["last_hidden_state"][0].mean(axis=0))
        a, b = vectors
        assert cosine == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-5)


def test_accuracy_counts_label_numbers_and_names() -> None:
    def length_parity(feed: Arrays, /) -> Arrays:
        odd = (feed["attention_mask"].sum(axis=1) % 2).astype(np.float32)
        return {"logits": np.stack([1 - odd, odd], axis=1)}

    data = _labels([("a", "1"), ("bb", "even"), ("ccc", "odd"), ("dddd", "odd")])
    steps: list[tuple[str, int, int]] = []
    result = evaluate(
        length_parity,
        _Tokenizer(),
        data,
        labels=["even", "odd"],
        batch_size=3,
        progress=lambda *s: steps.append(s),
    )
    assert (result.metric, result.value, result.count) == ("accuracy", 0.75, 4)
    assert result.decisions is not None
    assert result.decisions.tolist() == [1, 0, 1, 0]
    assert steps == [("evaluating", 0, 2), ("evaluating", 1, 2), ("evaluating", 2, 2)]


def test_pairs_reach_the_model_with_token_types() -> None:
    seen = []

    def record(feed: Arrays, /) -> Arrays:
        seen.append(tuple(feed[name].tolist() for name in ("input_ids", "attention_mask", "token_type_ids")))
        return _logits(feed)

    examples = [Example("a", "bc", "0"), Example("a", None, "0")]
    evaluate(record, _Tokenizer(), EvaluationSet(Path("x"), "classification", examples), labels=["no", "yes"])
    assert seen == [
        ([[1, 97, 2, 0, 0], [1, 97, 2, 98, 99]], [[1, 1, 1, 0, 0], [1] * 5], [[0] * 5, [0, 0, 0, 1, 1]])
    ]


def test_long_texts_are_cut() -> None:
    longest = []

    def record(feed: Arrays, /) -> Arrays:
        longest.append(feed["input_ids"].shape[1])
        return _angle(feed)

    data = _similarity([("a" * 99, "b", 1.0), ("c", "d", 2.0)])
    evaluate(record, _Tokenizer(), data, max_length=12)
    assert max(longest) == 12
    limited = _Tokenizer()
    limited.model_max_length = 7  # what its folder says
    longest.clear()
    evaluate(record, limited, data, max_length=12)
    assert max(longest) == 7
    longest.clear()
    evaluate(record, limited, data, max_length=12, sentence=SentenceModel(Path(), Path(), max_tokens=9))
    assert max(longest) == 9  # sentence-transformers puts its limit in the place of the tokenizer's


def test_a_model_that_answers_nonsense_scores_zero() -> None:
    def broken(feed: Arrays, /) -> Arrays:
        return {"sentence_embedding": np.full((len(feed["input_ids"]), 2), np.nan, np.float32)}

    data = _similarity([("a", "b", 1.0), ("c", "d", 2.0)])
    assert evaluate(broken, _Tokenizer(), data).value == 0.0


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [("cosine", [0.6, 0.0]), ("dot", [6.0, 0.0]), ("euclidean", [-(17**0.5), -5.0]), ("manhattan", [-5.0, -7.0])],
)
def test_similarities(similarity: str, expected: list[float]) -> None:
    first, second = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[3.0, 4.0], [4.0, 0.0]])
    np.testing.assert_allclose(similarities(first, second, similarity), expected)


def test_a_prompt_and_the_longest_text_are_those_of_the_folder() -> None:
    seen: list[np.ndarray] = []

    def encode(feed: Arrays, /) -> Arrays:
        ids = feed["input_ids"]
        seen.append(np.stack([ids, feed.get("pooling_mask", np.ones_like(ids))]))
        return _angle(feed)

    data = _similarity([("AAAA", "B", 1.0), ("CCC", "D", 2.0)])
    sentence = SentenceModel(Path(), Path(), prompts={"q": "qq"}, default_prompt="q", max_tokens=5)
    evaluate(encode, _Tokenizer(), data, sentence=sentence)
    ids, _ = seen[0]
    assert ids.shape[1] == 5
    assert (ids[:, 1:3] == ord("q")).all()
    excluding = SentenceModel(
        Path(), Path(), prompts={"q": "qq"}, default_prompt="q", pooling=Pooling(include_prompt=False)
    )
    evaluate(encode, _Tokenizer(), data, sentence=excluding)
    _, kept = seen[1]
    assert kept[:, :3].sum() == 0
    assert kept[:, 3:].all()


def _logits(feed: Arrays, /) -> Arrays:
    return {"logits": np.zeros((len(feed["input_ids"]), 2), np.float32)}


@pytest.mark.parametrize(
    ("encode", "data", "labels", "message"),
    [
        (_logits, _similarity([("a", "b", 1.0), ("a", "c", 2.0)]), [], "needs an embedding model"),
        (_angle, _labels([("a", "0")]), ["x"], "need a classifier"),
        (_logits, _labels([("a", "5")]), ["x", "y"], "label '5' is none of the model's labels"),
        (_logits, _labels([("a", "1")]), [], "it has none"),
        (_angle, _similarity([("a", "b", 1.0)]), [], "two or more"),
        (_angle, _similarity([("a", "b", 1.0), ("c", "d", 1.0)]), [], "all scores are 1.0"),
    ],
)
def test_data_for_another_model(encode: Any, data: EvaluationSet, labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(encode, _Tokenizer(), data, labels=labels)


@pytest.mark.slow
def test_the_real_model_loses_what_the_readme_says(minilm: Path, tmp_path: Path) -> None:
    data = read_evaluation_set(DEMO)

    def spearman(folder: Path) -> float:
        checkpoint = load_checkpoint(folder)
        encode = TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter))
        return evaluate(encode, checkpoint.tokenizer, data, sentence=checkpoint.sentence).value

    reference = spearman(minilm)
    assert reference > 0.87
    for recipe, allowed in (("ptq-w8a8", 0.005), ("ptq-w4a8", 0.02), ("ptq-w4", 0.02)):
        compress_model(minilm, tmp_path / recipe, recipe=recipe)
        assert spearman(tmp_path / recipe) > reference - allowed
    compress_model(minilm, tmp_path / "w2", recipe="ptq-w2a8")
    assert spearman(tmp_path / "w2") < reference - 0.05
