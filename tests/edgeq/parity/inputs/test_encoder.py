"""What encoders are run on: a grid of shapes, and texts."""

import numpy as np
import pytest

from edgeq.errors import UnsupportedError
from edgeq.export.signature import TRACED_LENGTH
from edgeq.parity.inputs.encoder import grid_lengths, make_feeds


@pytest.mark.parametrize("longest", [512, 37, 16, 9, 8, 4])
def test_grid_has_three_lengths_and_never_the_traced_one(longest):
    lengths = grid_lengths(longest)
    assert len(lengths) == len(set(lengths)) == 3
    assert TRACED_LENGTH not in lengths
    assert max(lengths) <= longest


def test_feeds_cover_batches_padding_and_texts():
    class Tokenizer:
        pad_token_id = 0

        def __call__(self, text, *, max_length, **_):
            ids = [1 + len(word) for word in text.split()][:max_length]
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}

    names = ["input_ids", "attention_mask", "token_type_ids"]
    sizes = {"vocabulary": 50, "token_types": 2, "longest": 20, "tokenizer": Tokenizer()}
    feeds = make_feeds(names, texts=["a bb", "c"] * 10, **sizes)
    assert {feed["input_ids"].shape[0] for feed in feeds.grid} == {1, 3}
    assert all((feed["attention_mask"] == 0).any() for feed in feeds.grid if len(feed["input_ids"]) > 1)
    assert [feed["input_ids"].shape for feed in feeds.texts] == [(16, 2), (4, 2)]
    again = make_feeds(names, texts=["a bb", "c"] * 10, **sizes)
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(feeds.all, again.all, strict=True))
    with pytest.raises(UnsupportedError, match="pixel_values"):
        make_feeds(["pixel_values"], texts=["a"], **sizes)
    without_types = make_feeds(names[:2], texts=["a"], **{**sizes, "token_types": 0})  # such as DeBERTa-v3
    assert len(without_types.grid) == len(feeds.grid)
