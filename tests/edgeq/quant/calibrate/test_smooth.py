"""Smoothing: the float model stays what it was, and large inputs become smaller."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.models import Migration
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


FAMILIES = {
    "bert": ("make_bert", {}),
    "gpt2": ("make_gpt2", {}),
    "bart": ("make_bart", {}),
    "llama": ("make_decoder", {"architecture": "LlamaForCausalLM"}),
    "llama, a key for every head": ("make_decoder", {"architecture": "LlamaForCausalLM", "num_key_value_heads": 4}),
    "qwen2": ("make_decoder", {"architecture": "Qwen2ForCausalLM"}),
    "gpt-neox": ("make_decoder", {"architecture": "GPTNeoXForCausalLM"}),
    "opt": ("make_decoder", {"architecture": "OPTForCausalLM"}),
    "opt, norms behind": ("make_decoder", {"architecture": "OPTForCausalLM", "do_layer_norm_before": False}),
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_float_model_computes_the_same(family: str, request: pytest.FixtureRequest) -> None:
    maker, options = FAMILIES[family]
    checkpoint = load_checkpoint(request.getfixturevalue(maker)(**options))
    model, texts = checkpoint.model.eval(), _Texts()
    batch = next(texts.batches(4, seed=1))
    with torch.no_grad():
        before = _run(model, batch)[0].clone()
    moves = checkpoint.adapter.migrations
    assert len(moves) >= checkpoint.model.config.num_hidden_layers
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
    move = checkpoint.adapter.migrations[0]

    def spread() -> float:
        (x,) = inputs_of(model, _run, batch, name=move.readers[0], count=1)
        peaks = x.flatten(0, -2).abs().amax(dim=0)
        return float(peaks.amax() / peaks.median())

    before = spread()
    assert Smooth(strength=0.5, outliers=before * 2, tokens=4).apply(model, [move], texts=texts, run=_run) == []
    assert Smooth(strength=0.5, outliers=6.0, tokens=4).apply(model, [move], texts=texts, run=_run) == [move.source]
    assert spread() < before / 4


def test_a_migration_that_is_not_exact_is_found(make_gpt2: Callable[..., Path]) -> None:
    model = load_checkpoint(make_gpt2(seed=2)).model.eval()
    # The last norm is read by the output head, but by nothing in the block.
    wrong = Migration("transformer.h.1.ln_2", ("transformer.h.1.attn.c_proj",))
    with pytest.raises(EdgeqError, match="not exact"):
        Smooth(strength=0.5, outliers=1.0, tokens=4).apply(model, [wrong], texts=_Texts(), run=_run)


def test_a_model_without_a_place_for_factors_is_refused(make_gpt2: Callable[..., Path]) -> None:
    model = load_checkpoint(make_gpt2(seed=2)).model.eval()

    class AddsOne(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(model.config.n_embd))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(x, dim=-1) * (1.0 + self.weight)

    model.transformer.h[0].ln_1 = AddsOne()
    move = Migration("transformer.h.0.ln_1", ("transformer.h.0.attn.c_attn",))
    for migrations in ([], [move]):
        with pytest.raises(UnsupportedError, match="GPT2LMHeadModel"):
            Smooth(strength=0.5, outliers=1.0, tokens=4).apply(model, migrations, texts=_Texts(), run=_run)
