"""Ways to quantize attention: what they compute, and their measurement on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.attention.accuracy import measure
from benchmarks.attention.schemes import SCHEMES, attention_in
from edgeq.quant.int8_attention import int8_attention


def states(*, hidden: int = 0, seed: int = 0) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, 3, 11, 16, generator=chance) for _ in range(3))
    mask = torch.zeros(2, 1, 1, 11)
    mask[..., 11 - hidden :] = torch.finfo(torch.float32).min
    return [query, key, value, mask]


def test_the_operator_is_one_of_them() -> None:
    query, key, value, mask = states(hidden=3)
    with attention_in(SCHEMES["relative, 127"]):
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(found, int8_attention(query, key, value, mask), atol=1e-6)


@pytest.mark.parametrize("name", SCHEMES)
def test_all_are_close_to_float_attention_and_blind_to_what_is_hidden(name: str) -> None:
    query, key, value, mask = states(hidden=3)
    wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with attention_in(SCHEMES[name]):
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        key[:, :, 8:], value[:, :, 8:] = 1e6, -1e6
        again = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert 0 < (found - wanted).norm() < 0.03 * wanted.norm()
    assert torch.equal(found, again)


def test_the_measurement_names_the_metric_and_how_far_outputs_move(float_checkpoint, tmp_path) -> None:
    data, text = tmp_path / "dev.tsv", tmp_path / "text.txt"
    rows = [("the cat sat", "a cat sat", 4.0), ("the quick fox", "a lazy dog", 1.0), ("good movie", "good dog", 2.0)]
    data.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{a}\t{b}\t{score}\n" for a, b, score in rows))
    text.write_text("the quick brown fox jumps over the lazy dog . " * 40)
    found = measure(float_checkpoint, data, recipe="ptq-w8a8", text=text, limit=2)
    assert found["blocks"] == 2
    assert [row["attention"] for row in found["rows"]] == ["float attention", *SCHEMES]
    assert found["rows"][0]["moved"] == 0
    assert all(0 < row["moved at length"] < 0.1 and "spearman" in row for row in found["rows"][1:])
    assert np.isfinite([row["spearman"] for row in found["rows"]]).all()
