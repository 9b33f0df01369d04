"""Smoothing: the float model stays what it was, and large inputs become smaller."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.quant.calibrate import Batch, Smooth
from edgeq.quant.calibrate.observe import inputs_of


class _Texts:
    def batches(self, tokens: int, *, seed: int, most: int | None = None) -> Iterator[Batch]:
        del most
        generator = torch.Generator().manual_seed(seed)
        yield {"input_ids": torch.randint(5, 40, (min(tokens, 4), 7), generator=generator)}


def _run(model: Any, batch: Batch) -> Any:
    options = {"decoder_input_ids": batch["input_ids"]} if model.config.is_encoder_decoder else {}
    return model(**batch, **options, use_cache=False) if model.config.model_type != "bert" else model(**batch)


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart"])
def test_the_float_model_computes_the_same(
    family: str,
    make_bert: Callable[..., Path],
    make_gpt2: Callable[..., Path],
    make_bart: Callable[..., Path],
) -> None:
    checkpoint = load_checkpoint({"bert": make_bert, "gpt2": make_gpt2, "bart": make_bart}[family]())
    model, texts = checkpoint.model.eval(), _Texts()
    batch = next(texts.batches(4, seed=1))
    with torch.no_grad():
        before = _run(model, batch)[0].clone()
    moves = [move for stack in checkpoint.adapter.stacks for move in stack.all_migrations()]
    weights = {name: value.clone() for name, value in model.named_parameters()}
    changed = Smooth(strength=0.5, outliers=1.0, tokens=4).apply(model, moves, texts=texts, run=_run)
    assert changed == [move.source for move in moves]
    assert any(not torch.equal(value, weights[name]) for name, value in model.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(_run(model, batch)[0], before, rtol=1e-4, atol=1e-4)


def test_an_outlier_moves_from_the_input_into_the_weights(make_gpt2: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(make_gpt2(seed=2))
    model, texts = checkpoint.model.eval(), _Texts()
    with torch.no_grad():
        model.transformer.h[0].ln_1.weight[3] = 80.0
    batch = next(texts.batches(4, seed=0))
    move = checkpoint.adapter.stacks[0].all_migrations()[0]

    def spread() -> float:
        (x,) = inputs_of(model, _run, batch, name=move.readers[0], count=1)
        peaks = x.flatten(0, -2).abs().amax(dim=0)
        return float(peaks.amax() / peaks.median())

    before = spread()
    assert Smooth(strength=0.5, outliers=before * 2, tokens=4).apply(model, [move], texts=texts, run=_run) == []
    assert Smooth(strength=0.5, outliers=6.0, tokens=4).apply(model, [move], texts=texts, run=_run) == [move.source]
    assert spread() < before / 4
