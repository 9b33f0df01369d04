import types

import pytest
import torch

from edgeq.errors import UsageError
from edgeq.training.augmentation import (
    AugmentationSettings,
    augment_rows,
    neighbours_of,
    predictions_of,
)
from edgeq.training.rows import Rows

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


def _rows(*cells: dict[str, str]) -> Rows:
    return Rows("train.tsv", list(cells), [f"line {index + 2}" for index in range(len(cells))])


def test_copies_differ_keep_their_label_and_follow_the_seed() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=2)
    rows = _rows({"sentence": "the good movie", "label": "1"}, {"sentence": "xyz", "label": "0"})
    settings = AugmentationSettings(copies=20, candidates=2, replace=0.5, seed=3)
    made = augment_rows(rows, candidates, settings)
    assert made == augment_rows(rows, candidates, settings)
    texts = [row["sentence"] for row in made.cells]
    assert len(texts) == len(set(texts)) >= 3
    assert "the good movie" not in texts
    assert "xyz" not in texts  # nothing to replace, nothing made
    assert all(row["sentence"].startswith("the ") and row["label"] == "1" for row in made.cells)
    assert made.places == ["line 2, augmented"] * len(texts)


def test_both_sentences_of_a_pair_change() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=1)
    settings = AugmentationSettings(copies=5, candidates=1, replace=1.0)
    rows = _rows({"sentence1": "good", "sentence2": "bad film", "score": "3"})
    made = augment_rows(rows, candidates, settings)
    assert made.cells == [{"sentence1": "great", "sentence2": "awful movie", "score": "3"}]


def test_what_cannot_be_augmented() -> None:
    candidates = neighbours_of(_model(), Tokenizer(), count=1)
    with pytest.raises(UsageError, match="no column of sentences to augment, found words"):
        augment_rows(_rows({"words": "good"}), candidates, AugmentationSettings())
    with pytest.raises(UsageError, match="no word of any sentence"):
        augment_rows(_rows({"text": "xyz"}), candidates, AugmentationSettings())


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="with a probability"):
        AugmentationSettings(replace=1.5)
    tokenizer = Tokenizer()
    tokenizer.get_vocab = lambda: {"##a": 0}
    with pytest.raises(UsageError, match="no whole words"):
        neighbours_of(_model(), tokenizer, count=1)
