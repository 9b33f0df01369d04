import types

import pytest
import torch

from edgeq.data import Example
from edgeq.errors import UsageError
from edgeq.training.augmentation import (
    AugmentationSettings,
    augment_examples,
    neighbours_of,
    predictions_of,
)

WORDS = ["[PAD]", "[MASK]", "good", "great", "bad", "awful", "movie", "film", "##ly", "the", "x9"]


class Tokenizer:
    """As much of a tokenizer as augmentation asks for: words between blanks."""

    all_special_tokens = ("[PAD]", "[MASK]")
    mask_token, mask_token_id = "[MASK]", 1

    def get_vocab(self):
        return {word: index for index, word in enumerate(WORDS)}

    def __call__(self, texts, **_):
        rows = [[WORDS.index(word) if word in WORDS else 0 for word in text.split()] for text in texts]
        longest = max(map(len, rows))
        return {"input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows])}


def _model():
    table = torch.nn.Embedding(len(WORDS), 3)
    meaning = {"good": (1, 0, 0), "great": (2, 0.1, 0), "bad": (-1, 0.1, 0), "awful": (-1, 0, 0.1)}
    meaning |= {"movie": (0, 0, 1), "film": (0, 0.2, 1), "the": (0, 1, 0)}
    with torch.no_grad():
        table.weight.fill_(0.01)
        for word, vector in meaning.items():
            table.weight[WORDS.index(word)] = torch.tensor([float(entry) for entry in vector])
    return types.SimpleNamespace(get_input_embeddings=lambda: table)


def test_the_nearest_words_of_the_embedding_table() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=1)
    found = candidates(["The", "good", "movie", ",", "x9", "unknown", "bad"])
    # Function words, punctuation and what the vocabulary does not know stay.
    assert found == [[], ["great"], ["film"], [], [], [], ["awful"]]


def test_predictions_of_a_masked_model() -> None:
    class Masked:
        config = types.SimpleNamespace(max_position_embeddings=16)

        def __call__(self, input_ids):
            logits = torch.zeros(*input_ids.shape, len(WORDS))
            logits[..., WORDS.index("##ly")] = 9.0  # never a candidate: no whole word
            logits[..., WORDS.index("good")] = 3.0
            logits[..., WORDS.index("awful")] = 2.0
            logits[..., WORDS.index("film")] = 1.0
            return types.SimpleNamespace(logits=logits)

    found = predictions_of(Masked(), Tokenizer(), count=2)(["the", "good", "movie"])
    assert found == [[], ["awful", "film"], ["good", "awful"]]


def test_copies_differ_keep_their_label_and_follow_the_seed() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=2)
    examples = [Example("the good movie", None, "1"), Example("xyz", None, "0")]
    settings = AugmentationSettings(copies=20, candidates=2, replace=0.5, seed=3)
    made = augment_examples(examples, candidates, settings)
    assert made == augment_examples(examples, candidates, settings)
    texts = [example.first for example in made]
    assert len(texts) == len(set(texts)) >= 3
    assert "the good movie" not in texts
    assert "xyz" not in texts  # nothing to replace, nothing made
    assert all(text.startswith("the ") and example.target == "1" for text, example in zip(texts, made, strict=True))


def test_both_sentences_of_a_pair_change() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=1)
    settings = AugmentationSettings(copies=5, candidates=1, replace=1.0)
    assert augment_examples([Example("good", "bad film", 3.0)], candidates, settings) == [
        Example("great", "awful movie", 3.0)
    ]


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="with a probability"):
        AugmentationSettings(replace=1.5)
    tokenizer = Tokenizer()
    tokenizer.get_vocab = lambda: {"##a": 0}
    with pytest.raises(UsageError, match="no whole words"):
        neighbours_of(_model(), tokenizer, count=1)
