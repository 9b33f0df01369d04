"""Recipes with factors: the built-in ones on true shapes, trained small ones, and what cannot be chained."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UsageError
from edgeq.factor.evaluation import call_tokens
from edgeq.factor.insert import factor_specs, insert_factor_modules
from edgeq.factor.names import layer_names
from edgeq.factor.prepare import prepare_for_packing
from edgeq.models import adapter_for
from edgeq.quant.trainable import make_trainable
from edgeq.recipes import TrainingRequest, list_recipes, load_recipe
from edgeq.recipes.apply import factorise_model, plan_layers
from edgeq.recipes.layers import kept_layers

FACTORISED = [summary.name for summary in list_recipes() if load_recipe(summary.name).factor is not None]
WORDS = ["good movie", "the lazy cat", "the dog sat", "a quick brown fox", "word1 word2 word3", "over the lazy dog"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "sentences.tsv"
    rows = [f"{text} {other}\t{index % 2}" for index, text in enumerate(WORDS) for other in WORDS[:4]]
    file.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "text.txt"
    file.write_text("\n\n".join(" ".join(WORDS[i:] + WORDS[:i]) for i in range(6)))
    return file


def _file(folder: Path, base: str, changes: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(f'extends = "{base}"\nname = "mine"\n{changes}')
    return path


def test_they_are_all_there() -> None:
    assert set(FACTORISED) == {
        *("kngpt2", "kngpt2-w4a8", "kngpt2-then-w4a8", "kronecker-bert-8x", "low-rank-64"),
        *(f"tucker-{size}" for size in ("iii-64", "iii-32", "iv-72-384", "iv-36-256", "iv-36-192", "iv-36-128")),
        *("tucker-iv-72-384-w2a8", "tucker-iv-72-384-w8a8-folded", "tucker-l6-iv-36-384-w2a8"),
    }


@pytest.mark.parametrize("name", FACTORISED)
def test_every_recipe_can_be_carried_out_at_true_size(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        if name.startswith("kngpt2"):
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
        else:
            blocks = 6 if recipe.layers is not None else 12
            config = transformers.BertConfig(num_hidden_layers=blocks, num_labels=2)
            model = transformers.BertForSequenceClassification(config)
        adapter = adapter_for(model)
        specs = recipe.factor.settings().plan(model, adapter)
        insert_factor_modules(model, specs)
        if recipe.weights.bits:
            prepare_for_packing(model, fold=recipe.factor.fold, tokens=call_tokens(adapter))
    plans = plan_layers(recipe, adapter, layer_names(model, adapter))
    assert len({plan.name for plan in plans}) == len(plans)
    packed = [plan for plan in plans if plan.grid is not None]
    assert bool(packed) == bool(recipe.weights.bits)
    if recipe.weights.bits:
        kept = {plan.name: plan.keep_float_reason for plan in plans if plan.grid is None}
        assert not [name for name, reason in kept.items() if not reason]
        assert not [name for name in kept if "bank" in name or "left" in name]
        heads = [plan for plan in plans if plan.tied_to is not None]
        assert all(plan.tied_to == "transformer.wte.table" for plan in heads)
    if name == "tucker-iv-72-384-w2a8":
        bits = {plan.name: plan.grid.bits for plan in packed}
        assert bits["bert.encoder.bank.cores"] == 2
        assert bits["bert.encoder.bank.left_up"] == 8
    if name.endswith("folded"):
        assert model.bert.encoder.bank.cores is None
        assert "bert.encoder.layer.3.attention.self.key.folded" in {plan.name for plan in packed}


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("tucker-iii-32", "[factor]\nrank = 8"),
        ("tucker-iv-36-192", "[factor]\nrank = 20\nbank = 5"),
        ("tucker-iv-72-384-w2a8", "[factor]\nrank = 20\nbank = 5"),
        ("tucker-iv-72-384-w8a8-folded", "[factor]\nrank = 20\nbank = 5"),
        ("kronecker-bert-8x", "[factor.attention]\nright = [2, 2]"),
        ("low-rank-64", "[factor]\nrank = 6"),
        ("tucker-l6-iv-36-384-w2a8", "[layers]\nkeep = [1]\n[factor]\nrank = 20\nbank = 5"),
    ],
)
def test_a_trained_classifier_is_stored_as_it_was_trained(
    base: str, changes: str, make_bert: Callable[..., Path], sentences: Path, tmp_path: Path
) -> None:
    source = make_bert("BertForSequenceClassification", hidden_size=32, intermediate_size=128)
    request = TrainingRequest(train_data=sentences, eval_data=sentences, epochs=2)
    compress_model(source, tmp_path / "out", recipe=_file(tmp_path, base, changes), training=request)
    dense = (source / "model.safetensors").stat().st_size
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < dense
    loaded = load_checkpoint(tmp_path / "out")
    assert factor_specs(loaded.model)
    ids = torch.arange(12).reshape(2, 6) + 5
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        outputs = [model(input_ids=ids).logits for model in (auto, loaded.model)]
    assert torch.allclose(*outputs, atol=1e-4)
    log = (tmp_path / "out-training" / "log.jsonl").read_text()
    assert "loss" in log


@pytest.mark.parametrize("base", ["kngpt2", "kngpt2-w4a8", "layer-drop"])
def test_a_trained_decoder(base: str, make_gpt2: Callable[..., Path], text: Path, tmp_path: Path) -> None:
    source = make_gpt2(n_inner=72)
    request = TrainingRequest(train_data=text, eval_data=text, epochs=2)
    recipe = _file(tmp_path, base, "[training]\nmax_length = 16\nbatch_size = 2")
    compress_model(source, tmp_path / "out", recipe=recipe, training=request)
    loaded = load_checkpoint(tmp_path / "out")
    ids = torch.arange(12).reshape(2, 6) + 5
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.allclose(auto(input_ids=ids).logits, loaded.model(input_ids=ids).logits, atol=1e-4)
    if base == "layer-drop":
        assert loaded.model.config.n_layer == 1
    else:
        assert "transformer.h.1.mlp.c_fc" in factor_specs(loaded.model)
        assert "transformer.h.0.mlp.c_fc" not in factor_specs(loaded.model)


def test_cores_are_rounded_once_a_pass(make_bert: Callable[..., Path], sentences: Path, tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(
        make_bert("BertForSequenceClassification", hidden_size=32, intermediate_size=128)
    )
    recipe = load_recipe(_file(tmp_path, "tucker-iv-72-384-w2a8", "[factor]\nrank = 20\nbank = 5"))
    adapter = adapter_for(model)
    make_trainable(model, plan_layers(recipe, adapter, factorise_model(model, recipe, adapter)))
    calls = []
    cores = model.bert.encoder.bank.cores
    cores.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.arange(12).reshape(2, 6) + 5
    gradients = []
    for _ in range(2):
        cores.weight.grad = None
        model.eval()(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append(cores.weight.grad)
    assert len(calls) == 2
    assert bool(gradients[0].any())
    assert torch.equal(*gradients)
    again = copy.deepcopy(model)
    with torch.no_grad():
        again.bert.encoder.bank.cores.weight.zero_()
    assert not torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_every_second_block() -> None:
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=5, n_embd=24, n_head=2))
    section = load_recipe("layer-drop").layers
    assert kept_layers(section, adapter_for(model)) == {"decoder": (0, 2, 4)}


def test_factors_without_training(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    recipe = tmp_path / "plain.toml"
    recipe.write_text(
        'name = "plain"\nsummary = "nearest factors, 4 bits"\n[factor]\nmethod = "tucker"\nrank = 20\nbank = 6\n'
        '[weights]\nbits = 4\n[embeddings]\nbits = 4\n[[override]]\npattern = ".*token_type.*"\nkeep_float = true\n'
        'reason = "two rows"\n'
    )
    result = compress_model(make_bert(intermediate_size=80), tmp_path / "out", recipe=recipe)
    by_name = {record.name: record for record in result.layers}
    assert by_name["encoder.bank.cores"].bits == 4
    assert by_name["encoder.bank.cores"].kind == "embedding"
    assert load_checkpoint(tmp_path / "out").manifest is not None


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("tucker-iii-64", "", "bank of width 40: the rank must be 1 to 40, found 64"),
        ("tucker-iii-32", "[factor]\nbank = 17\nrank = 8", "17 cores is larger than the 16 slices"),
        ("kronecker-bert-8x", "[factor.attention]\nright = [3, 2]", "3 does not divide 40; these do: 1, 2, 4, 5"),
        ("tucker-iii-32", "[factor]\nfold = true", "factor.fold is for packed factors"),
        ("tucker-iv-72-384-w2a8", '[factor]\nevaluate = "dense"', "factor.evaluate is for float factors"),
        ("tucker-iii-32", "[factor]\nembedding_factor = 2", "embedding_factor is for kronecker"),
        ("kngpt2", "[factor]\nrank = 2", "rank is for low-rank and tucker"),
        ("tucker-iii-32", '[factor]\nblocks = "odd"', "blocks is for kronecker and low-rank"),
        ("kngpt2", '[factor.attention]\nleft = [2, 2]', "either the left or the right factor"),
        ("low-rank-64", '[factor]\nevaluate = "up"', "is for tucker"),
        ("tucker-iii-32", '[factor]\nmethod = "cp"', "factor.method"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_any_work(
    base: str, changes: str, message: str, make_bert: Callable[..., Path], sentences: Path, tmp_path: Path
) -> None:
    source = make_bert("BertForSequenceClassification", intermediate_size=80)
    request = TrainingRequest(train_data=sentences)
    with pytest.raises(UsageError, match=message):
        compress_model(source, tmp_path / "out", recipe=_file(tmp_path, base, changes), training=request)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out-training").exists()
