"""Int8 attention as a module: the operator's numbers, gradients, and its places in models and recipes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

import edgeq.hf
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.export.ops import OPERATORS
from edgeq.models import TorchEncoder
from edgeq.models.cache import merge_heads, split_heads
from edgeq.parity.reference import RecordedAttention
from edgeq.parity.rules.isolated_attention import allowed_attention
from edgeq.quant.int8_attention import Int8Attention, int8_attention_names, use_int8_attention
from edgeq.quant.trainable import freeze, make_trainable, set_stage
from edgeq.recipes import apply_recipe, load_recipe, plan_layers
from edgeq.rounding import ulp_noise

INT8 = 'extends = "{base}"\nname = "int8-attention"\n[activations]\nattention = "int8"\n'
ATTENTION = ["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"]


@pytest.fixture
def recipe(tmp_path):
    """Returns a function that writes the recipe of a name with int8 attention."""

    def make(base="ptq-w8a8"):
        file = tmp_path / f"{base}.toml"
        file.write_text(INT8.format(base=base))
        return load_recipe(file)

    return make


@pytest.fixture(scope="module")
def compressed(make_bert, tmp_path_factory):
    """A compressed checkpoint with int8 attention."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "recipe.toml").write_text(INT8.format(base="ptq-w8a8"))
    compress_model(make_bert(seed=5), folder / "checkpoint", recipe=folder / "recipe.toml")
    return folder / "checkpoint"


def random_states(*, width=24, batch=2, tokens=9, seed=0):
    chance = np.random.default_rng(seed)
    mask = np.where(chance.random((batch, 1, 1, tokens)) < 0.3, np.float32(-1e38), np.float32(0))
    return [*chance.standard_normal((3, batch, tokens, width)).astype(np.float32), mask]


@pytest.mark.parametrize("tokens", [1, 9, 1050])
def test_the_module_computes_what_the_operator_means(tokens):
    heads = 1 if tokens > 9 else 3
    states = random_states(width=8 * heads, tokens=tokens, batch=1 if tokens > 9 else 2)
    with torch.no_grad():
        found = Int8Attention(heads)(*map(torch.from_numpy, states)).numpy()
    limit = allowed_attention(RecordedAttention("", heads, tuple(states), found))
    assert np.all(np.abs(found - limit.exact) <= limit.bound)
    wanted = OPERATORS["Int8Attention"].reference(*states, num_heads=heads, scale=8**-0.5)
    assert np.all(np.abs(wanted - limit.exact) <= limit.bound)


def test_gradients_are_those_of_float_attention_on_rounded_states():
    states = [torch.from_numpy(x).requires_grad_(index < 3) for index, x in enumerate(random_states())]
    with torch.no_grad():
        plain = Int8Attention(3)(*states)
    found = Int8Attention(3)(*states)
    assert torch.equal(found, plain)
    weight = torch.from_numpy(random_states(seed=1)[0])
    (found * weight).sum().backward()
    float_states = [x.detach().clone().requires_grad_(index < 3) for index, x in enumerate(states)]
    heads = [split_heads(x, 3) for x in float_states[:3]]
    attended = functional.scaled_dot_product_attention(*heads, attn_mask=float_states[3])
    (merge_heads(attended) * weight).sum().backward()
    for one, other in zip(states[:3], float_states[:3], strict=True):
        assert one.grad.abs().sum() > 0
        assert (one.grad - other.grad).norm() < 0.05 * other.grad.norm()


def test_dropout_leaves_weights_out_in_training_alone():
    states = list(map(torch.from_numpy, random_states()))
    module = Int8Attention(3)
    torch.manual_seed(0)
    dropped, plain = module(*states, dropout=0.5), module(*states)
    assert not torch.equal(dropped, plain)
    torch.manual_seed(0)
    assert torch.equal(module(*states, dropout=0.5), dropped)


def test_noise_moves_what_is_quantized():
    states = list(map(torch.from_numpy, random_states(tokens=40)))
    plain = Int8Attention(3)(*states)
    with ulp_noise(1):
        moved = Int8Attention(3)(*states)
    assert not torch.equal(moved, plain)
    assert (moved - plain).norm() < 0.01 * plain.norm()


def test_masks_of_any_form_hide_the_same(make_bert, recipe):
    checkpoint = load_checkpoint(make_bert(seed=5))
    use_int8_attention(checkpoint.model, checkpoint.adapter.int8_attention_names)
    attention = checkpoint.model.get_submodule(ATTENTION[0])
    states = torch.from_numpy(random_states(width=40, tokens=6)[0])
    seen = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)[:, None, None]
    lowest = torch.finfo(torch.float32).min
    with torch.no_grad():
        by_bool = attention(states, seen)[0]
        by_float = attention(states, torch.where(seen, 0.0, lowest).expand(2, 1, 6, 6))[0]
        unmasked, alone = attention(states)[0], attention(states[:1, :4])[0]
    assert torch.equal(by_bool, by_float)
    assert torch.equal(by_bool[1], unmasked[1])
    assert torch.allclose(by_bool[:1, :4], alone, rtol=1e-5, atol=1e-6)


def test_a_recipe_makes_attention_int8_and_the_checkpoint_keeps_it(compressed, make_bert):
    config = json.loads((compressed / "config.json").read_text())["quantization_config"]
    assert config["int8_attention"] == ATTENTION
    loaded = load_checkpoint(compressed)
    assert int8_attention_names(loaded.model) == tuple(ATTENTION)
    ids = np.random.default_rng(2).integers(0, 80, (2, 11))
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    found = TorchEncoder(loaded.model, loaded.adapter)(ids, mask)["last_hidden_state"]
    original = load_checkpoint(make_bert(seed=5))
    float_attention = load_checkpoint(make_bert(seed=5))
    apply_recipe(float_attention.model, load_recipe("ptq-w8a8"), float_attention.adapter)
    states = [
        TorchEncoder(one.model, one.adapter)(ids, mask)["last_hidden_state"] for one in (original, float_attention)
    ]
    assert not np.array_equal(found, states[1])
    assert np.linalg.norm(found - states[0]) < 0.05 * np.linalg.norm(states[0])
    again = transformers.AutoModel.from_pretrained(compressed)
    assert edgeq.hf.QUANT_METHOD == "edgeq"
    with torch.no_grad():
        result = again(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    assert np.allclose(result[mask == 1], found[mask == 1], atol=2e-2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"int8_attention": "x"}, "'int8_attention' must list names"),
        ({"int8_attention": ["encoder.nowhere"]}, "has no attention 'encoder.nowhere'"),
        ({"int8_attention": ["encoder.layer.0.output"]}, "'encoder.layer.0.output' should be self-attention"),
        ({"int4_attention": ATTENTION}, "a key 'int4_attention', which this edgeq does not know"),
    ],
)
def test_damaged_and_unknown_entries_are_refused(compressed, tmp_path, change, reason):
    folder = tmp_path / "checkpoint"
    shutil.copytree(compressed, folder)
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] |= change
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(FormatError, match=reason):
        load_checkpoint(folder)


def test_families_without_it_are_refused_by_name(make_gpt2, make_bert_relative, recipe):
    for folder in (make_gpt2(), make_bert_relative("DistilBertModel")):
        checkpoint = load_checkpoint(folder)
        with pytest.raises(UnsupportedError, match=f"found {checkpoint.adapter.architecture}"):
            apply_recipe(checkpoint.model, recipe(), checkpoint.adapter)
        assert int8_attention_names(checkpoint.model) == ()


@pytest.mark.parametrize("architecture", ["RobertaModel", "ElectraModel"])
def test_relatives_of_bert_have_it(make_bert_relative, make_encoder, recipe, architecture):
    checkpoint = load_checkpoint((make_encoder if architecture == "ElectraModel" else make_bert_relative)(architecture))
    ids = np.random.default_rng(2).integers(5, 80, (2, 11))
    before = TorchEncoder(checkpoint.model, checkpoint.adapter)(ids, np.ones_like(ids))["last_hidden_state"]
    apply_recipe(checkpoint.model, recipe(), checkpoint.adapter)
    assert list(int8_attention_names(checkpoint.model)) == checkpoint.adapter.int8_attention_names
    after = TorchEncoder(checkpoint.model, checkpoint.adapter)(ids, np.ones_like(ids))["last_hidden_state"]
    assert 0 < np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before)


def test_recipes_that_make_no_sense_are_refused(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(INT8.format(base="ptq-w4"))
    with pytest.raises(UsageError, match="goes with int8 inputs of linear layers"):
        load_recipe(file)
    file.write_text(INT8.format(base="ptq-w8a8").replace('"int8"', '"int4"'))
    with pytest.raises(UsageError, match="attention"):
        load_recipe(file)
    file.write_text(INT8.format(base="ptq-w8a8").replace('"int8"', '"float"'))
    assert load_recipe(file).activations == load_recipe("ptq-w8a8").activations


def test_a_stage_of_float_activations_has_float_attention(make_bert, recipe):
    wanted, checkpoint = recipe("two-stage-w1a8"), load_checkpoint(make_bert("BertForSequenceClassification", seed=6))
    model, adapter = checkpoint.model, checkpoint.adapter
    make_trainable(model, plan_layers(wanted, adapter))
    use_int8_attention(model, adapter.int8_attention_names)
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        quantized = model(ids).logits
        set_stage(model, activations=False)
        plain = model(ids).logits
        assert not torch.equal(quantized, plain)
        with pytest.raises(UsageError, match="switched off"):
            freeze(model)
        set_stage(model, activations=True)
        assert torch.equal(model(ids).logits, quantized)
        freeze(model)
        assert torch.allclose(model(ids).logits, quantized, atol=1e-5)
