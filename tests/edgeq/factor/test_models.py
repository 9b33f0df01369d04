"""Factorised models: which layers, exactness at full rank, exact parameter counts, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from edgeq.errors import UnsupportedError, UsageError
from edgeq.factor.apply import factorise
from edgeq.factor.insert import factor_specs, insert_factor_modules
from edgeq.factor.kinds.kronecker import KroneckerSettings, KroneckerShape
from edgeq.factor.kinds.low_rank import LowRankSettings
from edgeq.factor.kinds.tucker import TuckerSettings
from edgeq.models import adapter_for

HALVED = KroneckerShape(right=(1, 2))
KNGPT2 = KroneckerSettings(dict.fromkeys(("attention", "expand", "contract"), HALVED), "odd", 2)
IDS = torch.arange(14).reshape(2, 7) + 5


@pytest.fixture
def bert(make_bert: Callable[..., Path]) -> Any:
    folder = make_bert("BertForSequenceClassification", intermediate_size=80)
    return transformers.BertForSequenceClassification.from_pretrained(folder).eval()


@pytest.fixture
def gpt2(make_gpt2: Callable[..., Path]) -> Any:
    return transformers.GPT2LMHeadModel.from_pretrained(make_gpt2(n_inner=72)).eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


FULL = {
    "tucker-iii": TuckerSettings(40),
    "tucker-iv": TuckerSettings(40, cores=16),
    "tucker-ii": LowRankSettings(40, sliced=True),
    "low-rank": LowRankSettings(40),
    "kronecker": KroneckerSettings(
        {
            "attention": KroneckerShape(right=(1, 2), terms=2),
            "expand": KroneckerShape(left=(2, 1), terms=2),
            "contract": KroneckerShape(right=(2, 2), terms=4),
        },
        "all",
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_full_rank_keeps_the_function_of_bert(name: str, bert: Any) -> None:
    expected = _logits(bert)
    records = factorise(bert, adapter_for(bert), FULL[name])
    assert len(records) == 12
    assert max(record.relative_error for record in records) < 1e-9
    assert torch.allclose(_logits(bert), expected, atol=2e-4)


def test_conv1d_and_the_joined_queries_keys_and_values(gpt2: Any) -> None:
    """Two terms of factor 2 are exact, so any mix-up of GPT-2's input x output order would show."""
    expected = _logits(gpt2)
    shapes = dict.fromkeys(("attention", "expand", "contract"), KroneckerShape(right=(1, 2), terms=2))
    factorise(gpt2, adapter_for(gpt2), KroneckerSettings(shapes, "all"))  # type: ignore[arg-type]
    assert len(gpt2.transformer.h[0].attn.c_attn.parts) == 3
    assert torch.allclose(_logits(gpt2), expected, atol=2e-4)


def test_kngpt2_changes_odd_blocks_and_ties_the_head(gpt2: Any) -> None:
    records = factorise(gpt2, adapter_for(gpt2), KNGPT2)
    names = [record.name for record in records]
    assert names == [
        *(f"transformer.h.1.{part}" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
        "transformer.wte",
    ]
    assert all(0 < record.relative_error < 1 for record in records)
    assert gpt2.config.tie_word_embeddings is False
    table = gpt2.transformer.wte
    dense = table(torch.arange(table.num_embeddings))
    states = torch.randn(3, 36)
    assert torch.allclose(gpt2.lm_head(states), states @ dense.T, atol=1e-4)
    assert not [name for name, _ in gpt2.named_parameters() if name.startswith("lm_head")]


def test_training_moves_all_factors(gpt2: Any) -> None:
    factorise(gpt2, adapter_for(gpt2), KNGPT2)
    gpt2(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in gpt2.parameters())


def _meta(architecture: str, config: Any, settings: Any) -> tuple[Any, dict[str, Any]]:
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    specs = settings.plan(model, adapter_for(model))
    insert_factor_modules(model, specs)
    return model, specs


@pytest.mark.parametrize(
    ("rank", "cores", "outside_the_vocabulary"),
    [(384, 0, 22.93e6), (64, 0, 1.795e6), (384, 72, 12.32e6), (256, 36, 3.86e6), (128, 36, 1.90e6)],
)
def test_sizes_of_the_tucker_paper(rank: int, cores: int, outside_the_vocabulary: float) -> None:
    """BERT-base as the paper counts it: everything but the word embeddings."""
    model, specs = _meta("BertModel", transformers.BertConfig(), TuckerSettings(rank, cores))
    vocabulary = model.embeddings.word_embeddings.weight.numel()
    count = sum(p.numel() for p in model.parameters()) - vocabulary
    assert count == pytest.approx(outside_the_vocabulary, rel=3e-3)
    slices, width = 144, 768
    factors = 2 * width * rank + (cores * rank**2 + cores * slices if cores else slices * rank**2)
    biases = 12 * 9 * width
    assert sum(spec.parameters for spec in specs.values()) == factors + biases
    assert factor_specs(model) == specs


def test_sizes_of_kngpt2() -> None:
    model, _ = _meta("GPT2LMHeadModel", transformers.GPT2Config(), KNGPT2)
    count = sum(p.numel() for p in model.parameters())
    dense = 124_439_808
    halved = 50257 * 384 + 6 * (4 + 8) * 768 * 384
    assert count == dense - halved + 2 + 6 * 6 * 2
    assert 83e6 < count < 86e6


def test_sizes_of_parameterisation_ii() -> None:
    _, specs = _meta("BertModel", transformers.BertConfig(), LowRankSettings(64, sliced=True))
    biases = 12 * 9 * 768
    assert sum(spec.parameters for spec in specs.values()) - biases == 144 * (2 * 768 * 64 + 64**2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TuckerSettings(41), "bank of width 40: the rank must be 1 to 40, found 41"),
        (TuckerSettings(8, cores=17), "a bank of 17 cores is larger than the 16 slices that share it"),
        (LowRankSettings(41), "query: the rank must be 1 to 40, found 41"),
        (
            KroneckerSettings({"attention": KroneckerShape(right=(3, 1))}),
            "query: rows of the right Kronecker factor: 3 does not divide 40; these do: 1, 2, 4, 5, 8, 10, 20, 40",
        ),
        (KroneckerSettings({}, embedding_factor=3), "factor of the table: 3 does not divide 40"),
        (LowRankSettings(4, blocks=(2,)), "block 2 of the encoder, which has 2"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(settings: Any, message: str, bert: Any) -> None:
    before = _logits(bert)
    with pytest.raises(UsageError, match=message):
        factorise(bert, adapter_for(bert), settings)
    assert not factor_specs(bert)
    assert torch.equal(_logits(bert), before)


def test_feed_forward_layers_that_are_no_multiple_of_the_width(make_bert: Callable[..., Path]) -> None:
    model = transformers.BertModel.from_pretrained(make_bert())  # 76 on a width of 40
    with pytest.raises(UsageError, match=r"intermediate\.dense: its 76 rows are no multiple of the hidden size 40"):
        factorise(model, adapter_for(model), TuckerSettings(8))


def test_a_factorised_model_is_not_factorised_again(bert: Any) -> None:
    factorise(bert, adapter_for(bert), LowRankSettings(4))
    with pytest.raises(UsageError, match="factorised already"):
        factorise(bert, adapter_for(bert), LowRankSettings(4))


def test_tables_with_two_readers_are_refused(make_bart: Callable[..., Path]) -> None:
    model = transformers.BartForConditionalGeneration.from_pretrained(make_bart())
    with pytest.raises(UnsupportedError, match="looks up the same table"):
        factorise(model, adapter_for(model), KroneckerSettings({}, embedding_factor=2))
