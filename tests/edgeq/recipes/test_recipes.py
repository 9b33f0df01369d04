from pathlib import Path

import pytest
import transformers

from edgeq.errors import UsageError
from edgeq.models import adapter_for
from edgeq.recipes import Recipe, list_recipes, load_recipe, plan_layers
from edgeq.recipes.section import meaning

GOOD = """
name = "mine"
summary = "a test"
[weights]
bits = 4
[embeddings]
bits = 8
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _adapter(architecture: str = "BertModel"):
    return adapter_for(transformers.BertConfig(num_hidden_layers=2, architectures=[architecture]))


def test_builtin_recipes_are_listed_with_their_meaning() -> None:
    summaries = {recipe.name: recipe.summary for recipe in list_recipes()}
    bits = {recipe.name: recipe.bits for recipe in list_recipes()}
    assert bits["ptq-w2e2a8"] == "weights 2, embeddings 2, activations 8"
    assert bits["ptq-w4"].endswith("activations float")
    assert bits["kngpt2"] == "weights float, embeddings float, activations float"
    assert list(summaries) == sorted(summaries)
    assert {"ptq-w2a8", "ptq-w2e2a8", "ptq-w4", "ptq-w4a8", "ptq-w7a8", "ptq-w8a8"} <= set(summaries)
    assert all(summary and "\n" not in summary for summary in summaries.values())


@pytest.mark.parametrize("architecture", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize(
    ("name", "bits", "mode"),
    [
        ("ptq-w8a8", 8, "dynamic"),
        ("ptq-w7a8", 7, "dynamic"),
        ("ptq-w4a8", 4, "dynamic"),
        ("ptq-w2a8", 2, "dynamic"),
        ("ptq-w4", 4, "none"),
    ],
)
def test_builtin_recipes_compress_all_but_the_token_types(name: str, bits: int, mode: str, architecture: str) -> None:
    plans = {plan.name: plan for plan in plan_layers(load_recipe(name), _adapter(architecture))}
    kept = {layer for layer, plan in plans.items() if plan.grid is None}
    assert {layer.rsplit(".", 1)[-1] for layer in kept} == {"token_type_embeddings"}
    assert all(plans[layer].keep_float_reason for layer in kept)
    for layer, plan in plans.items():
        if layer in kept:
            continue
        assert plan.grid is not None
        assert plan.grid.bits == (8 if layer == "classifier" else bits)
        assert plan.activation == (mode if plan.kind == "linear" else "none")
        assert plan.per_row


def test_a_recipe_file_with_overrides(tmp_path: Path) -> None:
    text = (
        GOOD
        + """
[activations]
mode = "none"
[[override]]
pattern = 'encoder\\.layer\\.\\d+\\.output\\.dense'
bits = 2
grid = "balanced"
[[override]]
pattern = 'encoder\\.layer\\.1\\..*'
keep_float = true
reason = "layer 1 is special"
"""
    )
    plans = {plan.name: plan for plan in plan_layers(load_recipe(_file(tmp_path, text)), _adapter())}
    first = plans["encoder.layer.0.output.dense"].grid
    assert first is not None
    assert (first.bits, first.name) == (2, "balanced")
    # The last override that matches counts; the pattern is for the whole name.
    assert plans["encoder.layer.1.output.dense"].keep_float_reason == "layer 1 is special"
    other = plans["encoder.layer.0.attention.output.dense"].grid
    assert other is not None
    assert other.bits == 4


def test_embeddings_kept_in_float_say_why(tmp_path: Path) -> None:
    recipe = load_recipe(_file(tmp_path, GOOD.replace("bits = 8", "bits = 0")))
    plans = {plan.name: plan for plan in plan_layers(recipe, _adapter())}
    assert "embeddings.bits = 0" in (plans["embeddings.word_embeddings"].keep_float_reason or "")


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    digest = load_recipe(_file(tmp_path, GOOD)).sha256
    assert load_recipe(_file(tmp_path, "# a comment\n" + GOOD)).sha256 == digest
    assert load_recipe(_file(tmp_path, GOOD.replace("bits = 4", "bits = 2"))).sha256 != digest
    assert len(digest) == 64


def test_a_key_that_was_added_counts_in_the_digest_where_it_is_set(tmp_path: Path) -> None:
    base = 'extends = "quantgpt-w2e2a8"\n'
    plain = load_recipe(_file(tmp_path, base + '[weights]\nstart = "method"\n'))
    assert plain.sha256 == load_recipe("quantgpt-w2e2a8").sha256
    assert "start" not in meaning(plain)["weights"]
    told = load_recipe(_file(tmp_path, base + "[weights]\nstart = 2.0\n"))
    assert told.sha256 != plain.sha256
    assert meaning(told)["weights"]["start"] == 2.0
    plans = plan_layers(told, adapter_for(transformers.GPT2Config(n_layer=1, architectures=["GPT2LMHeadModel"])))
    assert {plan.start for plan in plans if plan.grid is not None and plan.tied_to is None} == {2.0, "method"}
    with pytest.raises(UsageError, match="start"):
        load_recipe(_file(tmp_path, base + "[weights]\nstart = -2.0\n"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[weights]\nbits", "[weights]\nbitz", "unknown key 'weights.bitz'; did you mean 'bits'"),
        ("[weights]", "[weigths]", "unknown key 'weigths'; did you mean 'weights'"),
        (
            "bits = 4",
            "bits = 4\ncolour = 1",
            "unknown key 'weights.colour'; known keys are bits, scale, grid, search",
        ),
        ("bits = 4", "bits = 3", "weights: weights have 1, 2, 4, 7, 8 bits, found 3"),
        ("bits = 4", "bits = 0", "found 0"),
        ("bits = 4", "bits = '4'", "weights.bits"),
        ("bits = 4", "bits = 4\ngrid = 'ternary'", "symmetric, found 'ternary'"),
        ("bits = 4", "bits = 4\nscale = 'column'", "found 'column'"),
        ("bits = 8", "bits = 5", "embeddings: weights have 1, 2, 4, 7, 8 bits, found 5"),
        ("bits = 8", "bits = 0\ngrid = 'binary'", "no grid"),
        ('name = "mine"', "", "key 'name' is missing"),
        ("bits = 8", "bits = 8\n[[override]]\npattern='['\nbits=2", "not a regular expression"),
        ("bits = 8", "bits = 8\n[[override]]\npattern='a'", "either bits or keep_float"),
        (
            "bits = 8",
            "bits = 8\n[[override]]\npattern='a'\nbits=2\nkeep_float=true\nreason='r'",
            "either bits",
        ),
        ("bits = 8", "bits = 8\n[[override]]\npattern='a'\nkeep_float=true", "needs a reason"),
        (
            "bits = 8",
            "bits = 8\n[[override]]\npatern='a'\nbits=2",
            "'override.0.patern'; did you mean 'pattern'",
        ),
        ("bits = 8", "bits = 8\n[[override]]\npattern='a'\nbits=6", "found 6"),
        ("bits = 8", "bits = 8\n[override]\npattern='a'", "override"),
        ("[weights]", "[weights", "not valid TOML"),
    ],
)
def test_what_a_recipe_cannot_say(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = _file(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("[weights]\nbits = 7\n", "weights"),
        ("[embeddings]\nbits = 7\n", "embeddings"),
        ("[[override]]\npattern = 'lm_head'\nbits = 7\n", "override 'lm_head'"),
    ],
)
def test_7_bits_are_not_for_recipes_that_train(tmp_path: Path, table: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} has 7 bits, which no quantizer of \[training\] has; use 8"):
        load_recipe(_file(tmp_path, f'extends = "quantgpt-w8e8a8"\n{table}'))


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ptq-w8a8'"):
        load_recipe("ptq-w8a7")
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="should be a file, found a folder"):
        load_recipe(tmp_path)


def test_a_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(GOOD.replace("a test", "une idée").encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        load_recipe(path)


def test_recipes_cannot_be_changed() -> None:
    recipe = load_recipe("ptq-w8a8")
    assert isinstance(recipe, Recipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"


def _gpt2(**values: object):
    config = transformers.GPT2Config(n_layer=2, architectures=["GPT2LMHeadModel"], **values)
    return adapter_for(config)


@pytest.mark.parametrize("name", ["ptq-w8a8", "ptq-w7a8", "ptq-w4a8", "ptq-w2a8", "ptq-w2e2a8", "ptq-w4"])
def test_builtin_recipes_compress_all_of_gpt2_but_the_positions(name: str) -> None:
    recipe = load_recipe(name)
    plans = {plan.name: plan for plan in plan_layers(recipe, _gpt2())}
    assert {layer for layer, plan in plans.items() if plan.grid is None} == {"transformer.wpe"}
    head, table = plans["lm_head"], plans["transformer.wte"]
    assert (head.tied_to, table.tied_to) == ("transformer.wte", None)
    assert (head.grid, head.per_row) == (table.grid, True)
    assert (head.activation, table.activation) == (recipe.activations.mode, "none")
    assert plans["transformer.h.1.mlp.c_fc"].per_row == (name != "ptq-w2e2a8")


def test_an_override_of_an_untied_head_is_its_own_business(tmp_path: Path) -> None:
    text = GOOD + "[[override]]\npattern = 'lm_head'\nbits = 2\n"
    recipe = load_recipe(_file(tmp_path, text))
    head = {plan.name: plan for plan in plan_layers(recipe, _gpt2(tie_word_embeddings=False))}["lm_head"]
    assert head.grid is not None
    assert (head.grid.bits, head.tied_to) == (2, None)
    with pytest.raises(UsageError, match="one tensor"):
        plan_layers(recipe, _gpt2())
