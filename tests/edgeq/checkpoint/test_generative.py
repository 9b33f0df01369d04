"""Checkpoints of models whose output head is the embedding table."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.ledger import ledger
from edgeq.models import adapter_for
from edgeq.quant.tied import TiedLowBitLinear
from edgeq.recipes import apply_recipe, list_recipes, load_recipe

TABLE = "transformer.wte"
FLOAT_TABLE = "[weights]\nbits = 4\n[embeddings]\nbits = 0\n"
EMBEDDINGS_8 = "[weights]\nbits = 4\n[embeddings]\nbits = 8\n"
BINARY = '[weights]\nbits = 1\nscale = "matrix"\n[embeddings]\nbits = 1\n'


@pytest.fixture(scope="module")
def compressed(make_gpt2: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "gpt2"
    compress_model(make_gpt2(), out, recipe="ptq-w2e2a8")
    return out


def _recipe(folder: Path, text: str) -> Path:
    (folder / "mine.toml").write_text(f'name = "mine"\nsummary = "a test"\n{text}')
    return folder / "mine.toml"


def _logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, 283, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=ids).logits
    return logits


def _copy(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(folder, to)
    values = json.loads((to / "config.json").read_text())
    change(values)
    (to / "config.json").write_text(json.dumps(values))
    return to


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes() if recipe.name.startswith("ptq-")])
def test_round_trip_is_exact_to_the_last_bit(
    recipe: str, make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_gpt2()
    result = compress_model(source, tmp_path / "out", recipe=recipe)
    in_memory = transformers.GPT2LMHeadModel.from_pretrained(source)
    apply_recipe(in_memory, load_recipe(recipe), adapter_for(in_memory))
    expected = _logits(in_memory)
    assert torch.equal(_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")), expected)
    checked = load_checkpoint(tmp_path / "out")
    assert torch.equal(_logits(checked.model), expected)
    assert checked.adapter.task == "generate"
    assert {name for name, reason in result.kept_float.items() if reason} == {"transformer.wpe"}


def test_conv1d_is_packed_with_one_row_an_output(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2()
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    layer = load_checkpoint(tmp_path / "out").model.transformer.h[1].mlp.c_fc
    weight = torch.from_numpy(load_file(source / "model.safetensors")["transformer.h.1.mlp.c_fc.weight"])
    assert weight.shape == (36, 76)
    assert (layer.out_features, layer.in_features, layer.spec.scales) == (76, 36, 76)
    assert (layer.dequantized() - weight.T).abs().max() < layer.scale.max()


def test_table_and_head_are_stored_once(compressed: Path) -> None:
    tensors = load_file(compressed / "model.safetensors")
    assert not [name for name in tensors if "lm_head" in name]
    assert tensors[f"{TABLE}.weight_packed"].shape == (18, 3, 16, 4)
    assert tensors[f"{TABLE}.scale"].shape == (283,)
    assert tensors["transformer.h.0.attn.c_attn.scale"].shape == (1,)
    values = json.loads((compressed / "config.json").read_text())
    assert values["tie_word_embeddings"] is False
    assert values["quantization_config"]["tied"] == {
        "lm_head": {"kind": "linear", "table": TABLE, "activation": "dynamic"}
    }
    assert [row.tensor for row in ledger(compressed).rows if row.shape == (283, 36)] == [TABLE]


def test_the_file_is_as_large_as_the_records_say(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    result = compress_model(make_gpt2(), tmp_path / "out", recipe="ptq-w4a8")
    names = {layer.name for layer in result.layers}
    stored = {
        name: array.nbytes
        for name, array in load_file(tmp_path / "out" / "model.safetensors").items()
        if name.rpartition(".")[0] in names and not name.endswith(".bias")
    }
    assert sum(stored.values()) == sum(layer.stored_bytes for layer in result.layers)
    head = next(layer for layer in result.layers if layer.name == "lm_head")
    assert (head.tied_to, head.stored_bytes, head.bits, head.activation) == (TABLE, 0, 4, "dynamic")


def test_the_head_reads_the_table(compressed: Path) -> None:
    model = load_checkpoint(compressed).model
    head, table = model.lm_head, model.transformer.wte
    assert isinstance(head, TiedLowBitLinear)
    assert head.table is table
    assert head.weight_packed is table.weight_packed
    assert head.centred_codes() is table.centred_codes()
    twin = copy.deepcopy(model)
    assert twin.lm_head.table is twin.transformer.wte
    before = _logits(model)
    head.set_codes(2 - table.codes(), table.scale)
    assert torch.equal(table.codes(), head.codes())
    assert not torch.equal(_logits(model), before)
    assert torch.equal(_logits(twin), before)


def test_from_pretrained_generates_in_a_fresh_process(compressed: Path) -> None:
    code = (
        "import sys, edgeq.hf, transformers\n"
        "m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()\n"
        "t = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = t('the cat sat', return_tensors='pt')\n"
        "made = m.generate(**ids, max_new_tokens=5, min_new_tokens=5, do_sample=False)\n"
        "print(type(m.lm_head).__name__, made.shape[1] - ids['input_ids'].shape[1])"
    )
    command = [sys.executable, "-c", code, str(compressed)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["TiedLowBitLinear", "5"]


def test_a_loaded_model_can_be_saved_again(compressed: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(compressed)
    model.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(_logits(again), _logits(model))


def test_the_body_loads_without_its_head(compressed: Path) -> None:
    body = transformers.AutoModel.from_pretrained(compressed).eval()
    whole = transformers.AutoModelForCausalLM.from_pretrained(compressed).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(body(ids)[0], whole.transformer(ids)[0])


def test_compressing_twice_gives_identical_files(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2()
    for name in ("a", "b"):
        compress_model(source, tmp_path / name, recipe="ptq-w2e2a8")
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_untied_head_is_packed_by_itself(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2(tie_word_embeddings=False)
    result = compress_model(source, tmp_path / "out", recipe="ptq-w2e2a8")
    assert next(layer for layer in result.layers if layer.name == "lm_head").scales == 1
    assert "lm_head.weight_packed" in load_file(tmp_path / "out" / "model.safetensors")
    in_memory = transformers.GPT2LMHeadModel.from_pretrained(source)
    apply_recipe(in_memory, load_recipe("ptq-w2e2a8"), adapter_for(in_memory))
    assert torch.equal(_logits(load_checkpoint(tmp_path / "out").model), _logits(in_memory))


def test_files_of_the_hub_have_other_names(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    # OpenAI's own checkpoints name no "transformer." and hold each layer's causal mask.
    source = make_gpt2()
    shutil.copytree(source, tmp_path / "hub")
    tensors = load_file(source / "model.safetensors")
    renamed = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    masks = {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 33, 33), np.float32)) for i in range(2)}
    save_file({**renamed, **masks}, tmp_path / "hub" / "model.safetensors", {"format": "pt"})
    for name, folder in (("a", source), ("b", tmp_path / "hub")):
        compress_model(folder, tmp_path / name, recipe="ptq-w4a8")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_float_table_keeps_its_head_float(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    result = compress_model(make_gpt2(), tmp_path / "out", recipe=_recipe(tmp_path, FLOAT_TABLE))
    assert TABLE in result.kept_float["lm_head"]
    loaded = load_checkpoint(tmp_path / "out").model
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(_logits(auto), _logits(loaded))


def test_one_bit_models_are_not_taken_for_damaged(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    # The table counts once, although the configuration of a compressed model says that nothing is tied.
    source = make_gpt2(vocab_size=5000, n_embd=96, n_inner=8, n_layer=1, n_positions=8)
    compress_model(source, tmp_path / "out", recipe=_recipe(tmp_path, BINARY))
    assert load_checkpoint(tmp_path / "out").model.lm_head.spec.bits == 1


# Wrong input


def test_an_override_cannot_store_one_tensor_in_two_ways(
    make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    override = "[[override]]\npattern = '{}'\nbits = 4\n"
    recipe = _recipe(tmp_path, EMBEDDINGS_8 + override.format("lm_head"))
    with pytest.raises(UsageError, match=r"'lm_head' in another way than 'transformer\.wte'"):
        compress_model(make_gpt2(), tmp_path / "out", recipe=recipe)
    both = _recipe(tmp_path, EMBEDDINGS_8 + override.format(r"lm_head|transformer\.wte"))
    result = compress_model(make_gpt2(), tmp_path / "out", recipe=both)
    assert {layer.bits for layer in result.layers if layer.name in (TABLE, "lm_head")} == {4}


def test_a_head_that_is_not_the_table_it_should_be(make_gpt2: Callable[..., Path]) -> None:
    model = transformers.GPT2LMHeadModel.from_pretrained(make_gpt2())
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight + 1)
    with pytest.raises(FormatError, match="tie_word_embeddings"):
        apply_recipe(model, load_recipe("ptq-w4a8"), adapter_for(model))


def _tied(values: dict[str, Any]) -> dict[str, Any]:
    tied: dict[str, Any] = values["quantization_config"]["tied"]
    return tied


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda v: _tied(v)["lm_head"].update(table="transformer.wpe"), "transformer.wpe"),
        (lambda v: _tied(v)["lm_head"].update(table="transformer.h.0.attn.c_proj"), "c_proj"),
        (lambda v: _tied(v)["lm_head"].update(table=3), "makes no sense"),
        (lambda v: _tied(v)["lm_head"].update(kind="embedding"), "packed embedding"),
        (lambda v: _tied(v)["lm_head"].update(kind="other"), "makes no sense"),
        (lambda v: _tied(v)["lm_head"].update(activation="static"), "makes no sense"),
        (lambda v: _tied(v).update(lm_head=7), "makes no sense"),
        (lambda v: _tied(v).update(nowhere=_tied(v)["lm_head"]), "'nowhere'"),
        (lambda v: _tied(v).update({"transformer.h.0.attn.c_proj": _tied(v)["lm_head"]}), "c_proj"),
        (lambda v: v["quantization_config"].update(tied=[]), "'tied'"),
        (lambda v: v["quantization_config"].pop("tied"), "lm_head"),
        (lambda v: v.update(tie_word_embeddings=True), "weight"),
        (lambda v: v.update(n_layer=3), "lacks tensor"),
        (lambda v: v.update(vocab_size=2**31), "parameters"),
    ],
)
def test_a_config_that_contradicts_the_weights(
    change: Callable[[dict[str, Any]], object], found: str, compressed: Path, tmp_path: Path
) -> None:
    folder = _copy(compressed, tmp_path / "copy", change)
    with pytest.raises(EdgeqError, match=found) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_any_flipped_bit_of_the_weights_is_noticed(compressed: Path, tmp_path: Path) -> None:
    folder = _copy(compressed, tmp_path / "copy", lambda _: None)
    content = (folder / "model.safetensors").read_bytes()
    for position in (9, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 4
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.3, "top_p": 0.5, "eos_token_id": 0},  # as Llama's file has it, without "do_sample"
        {"num_beams": 1, "length_penalty": 2.0, "early_stopping": True},
    ],
)
def test_settings_that_transformers_would_not_write_are_kept(
    settings: dict[str, Any], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    """Such files are on the hub; ``save_pretrained`` raises on them, which must not end a compression."""
    source = make_gpt2(n_layer=1)
    (source / "generation_config.json").write_text(json.dumps(settings))
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == settings
    assert load_checkpoint(tmp_path / "out").model.can_generate()


def test_settings_that_transformers_refuses_to_read(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2(n_layer=1)
    (source / "generation_config.json").write_text(json.dumps({"num_return_sequences": 4}))
    with pytest.raises(FormatError, match=r"generation_config\.json holds settings that transformers refuses: Greedy"):
        compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
