from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import Seq2SeqAdapter, TorchPart, adapter_for
from edgeq.models.transformers_release import RELEASE
from edgeq.recipes import apply_recipe, load_recipe

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def model(make_bart: Callable[..., Path]) -> transformers.BartForConditionalGeneration:
    return transformers.BartForConditionalGeneration.from_pretrained(make_bart()).eval()


@pytest.fixture(scope="module")
def packed(make_bart: Callable[..., Path]) -> transformers.BartForConditionalGeneration:
    loaded = transformers.BartForConditionalGeneration.from_pretrained(make_bart()).eval()
    apply_recipe(loaded, load_recipe("ptq-w4a8"), adapter_for(loaded))
    return loaded


def _adapter(model: Any) -> Seq2SeqAdapter:
    adapter = adapter_for(model)
    assert isinstance(adapter, Seq2SeqAdapter)
    return adapter


def _batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 283, (3, 11)), rng.integers(4, 283, (3, 7))
    mask = np.ones_like(source)
    mask[1, 5:] = 0
    mask[2, 1:] = 0
    return source, mask, target


def _expected(model: Any, source: np.ndarray, mask: np.ndarray, target: np.ndarray) -> np.ndarray:
    tensors = [torch.from_numpy(a) for a in (source, mask, target)]
    with torch.no_grad():
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        return model(**dict(zip(names, tensors, strict=True))).logits.numpy()


def _stepwise(
    model: Any, pieces: list[int], dtype: torch.dtype, *, batch: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Arrays]:
    encoder, first, following = map(TorchPart, _adapter(model).export_parts(model, cache_dtype=dtype))
    source, mask, target = batch
    states = encoder(input_ids=source, attention_mask=mask)["last_hidden_state"]
    logits, past, start = [], {}, 0
    for length in pieces:
        ids = target[:, start : start + length]
        if start == 0:
            outputs = first(encoder_attention_mask=mask, input_ids=ids, encoder_hidden_states=states)
        else:
            outputs = following(encoder_attention_mask=mask, input_ids=ids, **past)
        logits.append(outputs.pop("logits"))
        past |= {name.replace("present", "past_key_values"): array for name, array in outputs.items()}
        start += length
    return np.concatenate(logits, axis=1), past


def test_the_adapter_names_every_layer(model: Any) -> None:
    adapter = adapter_for(model)
    modules = dict(model.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    tables = {name for name, module in modules.items() if isinstance(module, nn.Embedding)}
    assert set(adapter.linear_names) == linears
    assert len(adapter.linear_names) == len(linears)
    assert set(adapter.embedding_names) == tables
    assert all(name in modules for name in adapter.layer_names)
    assert (adapter.family, adapter.task, adapter.max_positions) == ("bart", "seq2seq", 33)
    assert adapter.tied_names == {
        "model.encoder.embed_tokens": "model.shared",
        "model.decoder.embed_tokens": "model.shared",
        "lm_head": "model.shared",
    }


def test_parts_are_named_as_by_optimum(model: Any) -> None:
    encoder, first, following = _adapter(model).export_parts(model)
    assert encoder.name == "encoder_model"
    assert encoder.input_names == ("input_ids", "attention_mask")
    assert encoder.output_names == ("last_hidden_state",)
    assert first.name == "decoder_model"
    assert first.input_names == ("encoder_attention_mask", "input_ids", "encoder_hidden_states")
    kinds = [f"{side}.{part}" for side in ("decoder", "encoder") for part in ("key", "value")]
    assert first.output_names == ("logits", *(f"present.{i}.{kind}" for i in range(2) for kind in kinds))
    assert following.name == "decoder_with_past_model"
    past = tuple(f"past_key_values.{i}.{kind}" for i in range(2) for kind in kinds)
    assert following.input_names == ("encoder_attention_mask", "input_ids", *past)
    assert following.output_names == tuple(name for name in first.output_names if "encoder" not in name)


@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_a_float32_cache_computes_what_the_model_computes(
    make_bart: Callable[..., Path], bias: float
) -> None:
    model = transformers.BartForConditionalGeneration.from_pretrained(make_bart()).eval()
    model.final_logits_bias[0, 5] = bias
    batch = _batch()
    whole = _adapter(model).export_module(model, cache_dtype=torch.float32).eval()
    with torch.no_grad():
        logits = whole(*(torch.from_numpy(a) for a in batch)).numpy()
    np.testing.assert_allclose(logits, _expected(model, *batch), atol=1e-5)


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 3]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_cache_equals_no_cache(model: Any, pieces: list[int], dtype: torch.dtype) -> None:
    batch = _batch()
    whole = _adapter(model).export_module(model, cache_dtype=dtype).eval()
    with torch.no_grad():
        expected = whole(*(torch.from_numpy(a) for a in batch)).numpy()
    logits, past = _stepwise(model, pieces, dtype, batch=batch)
    # A key on an edge of float16, or of the grid of int8, may be rounded to either side.
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.int8: 2e-2}[dtype]
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    assert past["past_key_values.1.decoder.key"].shape == (3, 3, 7, 12)
    assert past["past_key_values.1.encoder.value"].shape == (3, 3, 11, 12)
    scales = {name: past.pop(name) for name in list(past) if name.endswith("_scale")}
    assert {str(array.dtype) for array in past.values()} == {str(dtype).removeprefix("torch.")}
    assert set(scales) == ({f"{name}_scale" for name in past} if dtype == torch.int8 else set())
    assert all(scale.shape == (*past[name.removesuffix("_scale")].shape[:3], 1) for name, scale in scales.items())


def test_packed_models_agree_with_transformers(packed: Any) -> None:
    batch = _batch()
    logits, _ = _stepwise(packed, [1, 6], torch.float32, batch=batch)
    expected = _expected(packed, *batch)
    # Rounding differences may turn an activation of the int8 grid into its neighbour.
    assert np.quantile(np.abs(logits - expected), 0.9) < 5e-3 * np.abs(expected).max()


def test_padding_of_the_source_does_not_reach_the_answer(model: Any) -> None:
    source, mask, target = _batch()
    together, _ = _stepwise(model, [2, 5], torch.float16, batch=(source, mask, target))
    for row in range(3):
        own = source[row : row + 1, mask[row] == 1]
        batch = (own, np.ones_like(own), target[row : row + 1])
        alone, _ = _stepwise(model, [2, 5], torch.float16, batch=batch)
        np.testing.assert_allclose(together[row], alone[0], atol=2e-3)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"activation_function": "mish"}, "mish"),
        ({"is_encoder_decoder": False}, "decoder alone"),
    ],
)
def test_other_variants_are_refused(values: dict[str, Any], found: str) -> None:
    architectures = ["BartForConditionalGeneration"]
    with pytest.raises(UnsupportedError, match=found):
        adapter_for(transformers.BartConfig(architectures=architectures, **values))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"d_model": 100, "decoder_attention_heads": 12, "encoder_attention_heads": 4}, "100 and 12"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"decoder_layers": 10**9}, "decoder_layers"),
        pytest.param(
            {"encoder_ffn_dim": 12.5},
            "12.5",
            marks=pytest.mark.skipif(RELEASE >= 5, reason="release 5 of transformers makes no such configuration"),
        ),
    ],
)
def test_impossible_sizes_are_refused(values: dict[str, Any], found: str) -> None:
    architectures = ["BartForConditionalGeneration"]
    with pytest.raises(FormatError, match=found):
        adapter_for(transformers.BartConfig(architectures=architectures, **values))


def test_other_heads_are_refused() -> None:
    config = transformers.BartConfig(architectures=["BartForQuestionAnswering"])
    with pytest.raises(UnsupportedError, match="BartForQuestionAnswering"):
        adapter_for(config)
