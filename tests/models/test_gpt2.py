import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.ops.low_bit_linear import quantize_activation
from edgeq.models import GenerativeAdapter, TorchDecoder, adapter_for, positions
from edgeq.models.cache import causal_mask, store
from edgeq.models.inference import log_sum_exp_in_place
from edgeq.recipes import apply_recipe, load_recipe
from edgeq.rounding import ulp_noise


def _config(**values: Any) -> transformers.GPT2Config:
    return transformers.GPT2Config(**{"architectures": ["GPT2LMHeadModel"], **values})


@pytest.fixture(scope="module", params=[None, "ptq-w4a8", "ptq-w2e2a8"])
def model(request: pytest.FixtureRequest, make_gpt2: Callable[..., Path]) -> transformers.GPT2LMHeadModel:
    loaded = transformers.GPT2LMHeadModel.from_pretrained(make_gpt2()).eval()
    if request.param:
        apply_recipe(loaded, load_recipe(request.param), adapter_for(loaded))
    return loaded


@pytest.fixture(scope="module")
def float_model(make_gpt2: Callable[..., Path]) -> transformers.GPT2LMHeadModel:
    return transformers.GPT2LMHeadModel.from_pretrained(make_gpt2()).eval()


def _adapter(model: Any) -> GenerativeAdapter:
    adapter = adapter_for(model)
    assert isinstance(adapter, GenerativeAdapter)
    return adapter


def _left_padded() -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 97, (3, 11))
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    mask[2, :10] = 0
    return ids, mask


def _logits_of_transformers(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    places = positions(mask, queries=ids.shape[1])
    tensors = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    with torch.no_grad():
        return model(**{name: torch.from_numpy(a) for name, a in tensors.items()}).logits.numpy()


def _stepwise(decoder: TorchDecoder, ids: np.ndarray, mask: np.ndarray, pieces: list[int]) -> np.ndarray:
    """Reads pieces one after the other, each with the cache that the one before left."""
    logits, past, start = [], {}, 0
    for length in pieces:
        stop = start + length
        places = positions(mask[:, :stop], queries=length)
        outputs = decoder(ids[:, start:stop], mask[:, :stop], places, **past)
        logits.append(outputs["logits"])
        past = {
            name.replace("present", "past_key_values"): a for name, a in outputs.items() if name != "logits"
        }
        start = stop
    assert all(a.shape[:3] == (len(ids), 3, ids.shape[1]) for a in past.values())
    assert all(a.shape[3] == (1 if name.endswith("_scale") else 12) for name, a in past.items())
    return np.concatenate(logits, axis=1)


def test_the_adapter_names_every_layer(float_model: Any) -> None:
    adapter = adapter_for(float_model)
    modules = dict(float_model.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)}
    tables = {name for name, module in modules.items() if isinstance(module, nn.Embedding)}
    assert set(adapter.linear_names) == linears
    assert len(adapter.linear_names) == len(linears)
    assert set(adapter.embedding_names) == tables
    assert all(name in modules for name in adapter.layer_names)
    assert (adapter.family, adapter.task, adapter.max_positions) == ("gpt2", "generate", 33)
    assert adapter.tied_names == {"lm_head": "transformer.wte"}


def test_inputs_and_outputs_are_named_as_by_optimum(float_model: Any) -> None:
    adapter = _adapter(float_model)
    kv = ["0.key", "0.value", "1.key", "1.value"]
    for dtype, names in (
        (torch.float16, kv),
        (torch.int8, [name for part in kv for name in (part, f"{part}_scale")]),
    ):
        part = adapter.export_part(float_model, cache_dtype=dtype)
        past = [f"past_key_values.{name}" for name in names]
        assert list(part.input_names) == ["input_ids", "attention_mask", "position_ids", *past]
        assert list(part.output_names) == ["logits", *(f"present.{name}" for name in names)]
    assert (adapter.cache.layers, adapter.cache.heads, adapter.cache.head_size) == (2, 3, 12)


def test_a_float32_cache_computes_what_the_model_computes(model: Any) -> None:
    ids, mask = _left_padded()
    decoder = TorchDecoder(model, _adapter(model), cache_dtype=torch.float32)
    logits = decoder(ids, mask, positions(mask, queries=11))["logits"]
    expected = _logits_of_transformers(model, ids, mask)
    assert np.isfinite(logits).all()
    # Rounding differences may turn an activation of the int8 grid into its neighbour.
    error = np.abs(logits - expected)[mask == 1]
    assert np.quantile(error, 0.9) < 2e-3 * np.abs(expected).max()


def test_a_float_model_agrees_to_the_last_digits(float_model: Any) -> None:
    ids, mask = _left_padded()
    decoder = TorchDecoder(float_model, _adapter(float_model), cache_dtype=torch.float32)
    logits = decoder(ids, mask, positions(mask, queries=11))["logits"]
    np.testing.assert_allclose(
        logits[mask == 1], _logits_of_transformers(float_model, ids, mask)[mask == 1], atol=1e-5
    )


@pytest.mark.parametrize(
    "values",
    [
        {"activation_function": "relu", "n_inner": None},
        {"activation_function": "silu", "n_head": 9},
        {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        {"tie_word_embeddings": False, "vocab_size": 301},
    ],
)
def test_configurations_as_transformers_spells_them_out(
    make_gpt2: Callable[..., Path], values: dict[str, Any]
) -> None:
    """Compared with its eager attention: another one takes no notice of how scores are scaled (release 4.57)."""
    folder = make_gpt2(seed=2, **values)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids, mask = _left_padded()
    decoder = TorchDecoder(model, _adapter(model), cache_dtype=torch.float32)
    logits = decoder(ids, mask, positions(mask, queries=11))["logits"]
    np.testing.assert_allclose(logits[mask == 1], _logits_of_transformers(model, ids, mask)[mask == 1], atol=1e-5)


@pytest.mark.parametrize("pieces", [[11], [1] * 11, [4, 1, 6], [10, 1]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_cache_equals_no_cache(float_model: Any, pieces: list[int], dtype: torch.dtype) -> None:
    # The same numbers enter the cache in either way, so that only the order of float sums differs.
    ids, mask = _left_padded()
    decoder = TorchDecoder(float_model, _adapter(float_model), cache_dtype=dtype)
    whole = _stepwise(decoder, ids, mask, [11])
    # A key on an edge of float16, or of the grid of int8, may be rounded to either side.
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.int8: 2e-2}[dtype]
    np.testing.assert_allclose(
        _stepwise(decoder, ids, mask, pieces)[mask == 1], whole[mask == 1], atol=tolerance
    )


def test_the_present_is_rounded_to_the_cache_as_well(float_model: Any) -> None:
    ids, mask = _left_padded()
    adapter = _adapter(float_model)
    arguments = (ids, mask, positions(mask, queries=11))
    half = TorchDecoder(float_model, adapter)(*arguments)
    full = TorchDecoder(float_model, adapter, cache_dtype=torch.float32)(*arguments)
    assert all(half[name].dtype == np.float16 for name in adapter.cache_names("present", torch.float16))
    np.testing.assert_array_equal(half["present.0.key"], full["present.0.key"].astype(np.float16))
    np.testing.assert_array_equal(half["present.0.value"], full["present.0.value"].astype(np.float16))
    assert not np.array_equal(half["logits"], full["logits"])


def test_int8_keys_and_values_have_a_scale_for_each_token_and_head(float_model: Any) -> None:
    ids, mask = _left_padded()
    adapter = _adapter(float_model)
    arguments = (ids, mask, positions(mask, queries=11))
    codes = TorchDecoder(float_model, adapter, cache_dtype=torch.int8)(*arguments)
    full = TorchDecoder(float_model, adapter, cache_dtype=torch.float32)(*arguments)
    for name in ("present.0.key", "present.0.value"):
        want, want_scales = quantize_activation(full[name])
        assert codes[name].dtype == np.int8
        np.testing.assert_array_equal(codes[name], want)
        np.testing.assert_array_equal(codes[f"{name}_scale"], want_scales)
        # Half a step of each token's own scale, and no more.
        assert (np.abs(codes[name] * want_scales - full[name]) <= want_scales * 0.5001).all()
    assert not np.array_equal(codes["logits"], full["logits"])


def test_noise_reaches_an_int8_cache(float_model: Any) -> None:
    """What parity allows for the edges of the grid is measured by moving keys and values, too."""
    keys = torch.randn(2, 3, 40, 12, generator=torch.Generator().manual_seed(0))
    keys[..., 0] = 127.0
    keys[..., 1] = 0.5  # on an edge
    codes, scales = store(keys, torch.int8)
    with ulp_noise(3):
        moved, moved_scales = store(keys, torch.int8)
    assert not torch.equal(codes, moved)
    assert not torch.equal(scales, moved_scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_padding_in_front_does_not_reach_the_answer(float_model: Any, dtype: torch.dtype) -> None:
    ids, mask = _left_padded()
    decoder = TorchDecoder(float_model, _adapter(float_model), cache_dtype=dtype)
    together = decoder(ids, mask, positions(mask, queries=11))["logits"]
    for row in range(3):
        own = ids[row : row + 1, mask[row] == 1]
        ones = np.ones_like(own)
        alone = decoder(own, ones, positions(ones, queries=own.shape[1]))["logits"]
        tolerance = {torch.float16: 2e-3, torch.int8: 2e-2}[dtype]
        np.testing.assert_allclose(together[row, mask[row] == 1], alone[0], atol=tolerance)


def test_a_later_token_does_not_reach_an_earlier_one(model: Any) -> None:
    ids, _ = _left_padded()
    ones = np.ones_like(ids)
    decoder = TorchDecoder(model, _adapter(model))
    before = decoder(ids, ones, positions(ones, queries=11))["logits"]
    ids[:, 6:] = 96 - ids[:, 6:]
    after = decoder(ids, ones, positions(ones, queries=11))["logits"]
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-5)
    assert np.abs(after[:, 6:] - before[:, 6:]).max() > 0.1


def test_positions_count_tokens_only() -> None:
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert positions(mask, queries=5).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert positions(mask, queries=1).tolist() == [[2], [4]]
    assert positions(mask, queries=1).dtype == np.int64


def test_the_mask_of_a_step() -> None:
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    seen = causal_mask(mask, past=2, queries=2) == 0
    assert seen.shape == (2, 1, 2, 4)
    assert seen[0, 0].tolist() == [[False, True, True, False], [False, True, True, True]]
    assert seen[1, 0].tolist() == [[True, True, True, False], [True] * 4]


def test_scores_are_log_probabilities(float_model: Any) -> None:
    ids = np.random.default_rng(1).integers(0, 97, (2, 9))
    adapter = _adapter(float_model)
    scores = TorchDecoder(float_model, adapter, cache_dtype=torch.float32).score(ids)
    logits = torch.from_numpy(_logits_of_transformers(float_model, ids, np.ones_like(ids)))
    expected = logits.log_softmax(-1)[:, :-1].gather(-1, torch.from_numpy(ids)[:, 1:, None]).squeeze(-1)
    assert scores.shape == (2, 8)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)


def test_hidden_states_and_attention_maps_are_at_hand(make_gpt2: Callable[..., Path]) -> None:
    # Distillation reads them from transformers, of float teachers and of packed students alike.
    student = transformers.GPT2LMHeadModel.from_pretrained(make_gpt2(), attn_implementation="eager").eval()
    adapter = adapter_for(student)
    apply_recipe(student, load_recipe("ptq-w4a8"), adapter)
    outputs = student(torch.tensor([[1, 2, 3]]), output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == len(adapter.layer_names)
    assert [tuple(a.shape) for a in outputs.attentions] == [(1, 3, 3, 3)] * 2


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"activation_function": "mish"}, "GPT-2 with activation 'mish'"),
        ({"multi_query": True}, "GPT-2 with multi_query = True"),
        ({"add_cross_attention": True}, "cross-attention"),
    ],
)
def test_other_variants_are_refused(values: dict[str, Any], found: str) -> None:
    with pytest.raises(UnsupportedError, match=found):
        adapter_for(_config(**values))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"n_embd": 100, "n_head": 12}, "100 and 12"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"n_positions": "many"}, "many"),
        ({"n_inner": 12.5}, "12.5"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
    ],
)
def test_impossible_sizes_are_refused(
    values: dict[str, Any], found: str, make_gpt2: Callable[..., Path]
) -> None:
    """Release 5 of transformers checks some of them itself, when the configuration is made."""
    path = make_gpt2() / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(FormatError, match=found):
        load_checkpoint(path.parent)


def test_an_untied_head_is_a_layer_of_its_own() -> None:
    assert adapter_for(_config(tie_word_embeddings=False)).tied_names == {}


def test_sums_of_exponentials_in_place_are_torchs():
    values = torch.randn((3, 5, 501), generator=torch.Generator().manual_seed(0)) * 9
    values[0, 0], values[1, 1, 2] = -torch.inf, torch.inf
    assert torch.equal(log_sum_exp_in_place(values.clone()), values.logsumexp(-1))
