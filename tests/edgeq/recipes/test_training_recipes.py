"""The built-in recipes that train: what they say, resolved for the models they are for."""

from pathlib import Path

import pytest
import transformers

from edgeq.errors import UsageError
from edgeq.models import adapter_for
from edgeq.quant.quantizers import make_quantizer
from edgeq.recipes import Recipe, list_recipes, load_recipe, plan_layers
from edgeq.recipes.families import check_family
from edgeq.recipes.training import LOWEST_BITS, objective_settings, training_settings

ADAPTERS = {
    "bert": adapter_for(
        transformers.BertConfig(num_hidden_layers=12, architectures=["BertForSequenceClassification"])
    ),
    "gpt2": adapter_for(transformers.GPT2Config(n_layer=2, architectures=["GPT2LMHeadModel"])),
    "bart": adapter_for(
        transformers.BartConfig(
            encoder_layers=2, decoder_layers=2, architectures=["BartForConditionalGeneration"]
        )
    ),
}
TRAINED = [recipe.name for recipe in list_recipes() if load_recipe(recipe.name).trains]
QUANTGPT = [
    f"quantgpt-w{bits}e{bits}a8{baseline}"
    for bits in (8, 4, 2)
    for baseline in ("", "-pact", "-lsq", "-laq")
]
XTC = [f"xtc-l{depth}-w{bits}a8" for depth in (12, 6, 5, 3) for bits in (1, 2)]
XTC_IN_FLOAT = ["xtc-l6", "xtc-l5", "xtc-l3"]
TWO_STAGE = ["two-stage-w1a8", "two-stage-w2a8"]
OWN = ["paretoq-w2e2a8", "paretoq-ternary-w2e2a8", "tbt-w2e2a8", "tbt-w1e1a8"]


def _plans(recipe: Recipe, family: str):
    check_family(recipe, ADAPTERS[family])
    return {plan.name: plan for plan in plan_layers(recipe, ADAPTERS[family])}


def test_all_of_them_are_there() -> None:
    assert {*QUANTGPT, *XTC, *XTC_IN_FLOAT, *TWO_STAGE, *OWN} <= set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_every_plan_can_be_carried_out(name: str) -> None:
    recipe = load_recipe(name)
    tried = 0
    for family in ADAPTERS:
        try:
            plans = _plans(recipe, family)
        except UsageError:
            continue  # a family that is not for this model
        tried += 1
        for plan in plans.values():
            if plan.grid is None:
                assert plan.keep_float_reason
            else:
                assert plan.method is not None
                make_quantizer(
                    plan.method,
                    bits=plan.grid.bits,
                    per_row=plan.per_row,
                    gradient=plan.gradient,
                    grid=plan.grid.name,
                )
    assert tried
    training_settings(recipe)
    objective_settings(recipe.distill)


@pytest.mark.parametrize("name", QUANTGPT)
@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_quantgpt(name: str, family: str) -> None:
    recipe = load_recipe(name)
    plans = _plans(recipe, family)
    bits = int(name[len("quantgpt-w")])
    method = name[len("quantgpt-w2e2a8-") :] or "module-scaling"
    table = "transformer.wte" if family == "gpt2" else "model.shared"
    kept = {layer for layer, plan in plans.items() if plan.grid is None}
    assert kept == set(ADAPTERS[family].float_names)  # positions; norms and biases are in no plan
    for layer, plan in plans.items():
        if layer in kept:
            continue
        assert plan.grid is not None
        assert (plan.grid.bits, plan.method) == (bits, method)
        assert plan.per_row == (table in (layer, plan.tied_to))
        assert plan.activation == ("dynamic" if plan.kind == "linear" else "none")
    assert plans["lm_head"].tied_to == table
    objective = objective_settings(recipe.distill)
    assert (objective.logits, objective.labels, objective.hidden, objective.attention) == (1.0, 0.0, 0.0, 0.0)
    assert objective.contrastive == 0.1


@pytest.mark.parametrize("name", XTC)
def test_xtc(name: str) -> None:
    recipe = load_recipe(name)
    bits = int(name[-3])
    plans = _plans(recipe, "bert")
    kept = {layer for layer, plan in plans.items() if plan.grid is None}
    assert kept == {
        "bert.embeddings.position_embeddings",
        "bert.embeddings.token_type_embeddings",
        "bert.pooler.dense",
        "classifier",
    }
    for layer, plan in plans.items():
        if layer not in kept:
            assert plan.grid is not None
            assert (plan.grid.bits, plan.method) == (bits, {1: "bwn", 2: "twn"}[bits])
            assert plan.gradient == "identity"
            assert plan.per_row == (plan.kind == "embedding")
    objective = objective_settings(recipe.distill)
    assert (objective.logits, objective.labels, objective.hidden, objective.attention) == (1.0, 0.0, 1.0, 1.0)
    depths = {"l12": None, "l6": (1, 3, 5, 7, 9, 11), "l5": (2, 4, 6, 8, 10), "l3": (1, 3, 5)}
    assert (recipe.layers.keep if recipe.layers else None) == depths[name.split("-")[1]]


def test_budgets() -> None:
    recipe = load_recipe("xtc-l6-w1a8")
    assert [training_settings(recipe, budget=budget).epochs for budget in "ABC"] == [3, 9, 18]
    assert training_settings(recipe).epochs == 18
    assert training_settings(recipe, epochs=0.5).epochs == 0.5
    with pytest.raises(UsageError, match=r"no budget 'D'.*known: A, B, C"):
        training_settings(recipe, budget="D")
    with pytest.raises(UsageError, match="not both"):
        training_settings(recipe, budget="A", epochs=3)
    with pytest.raises(UsageError, match="does not train"):
        training_settings(load_recipe("ptq-w8a8"))


@pytest.mark.parametrize("name", TWO_STAGE)
def test_two_stages_lower_the_bits_and_end_with_activations(name: str) -> None:
    recipe = load_recipe(name)
    stages = training_settings(recipe).stages
    bits = [max(stage.bits or 0, recipe.weights.bits) for stage in stages]
    assert bits == {"two-stage-w1a8": [8, 4, 2, 1, 1], "two-stage-w2a8": [8, 4, 2, 2]}[name]
    assert stages[-1].bits == LOWEST_BITS
    assert [stage.activations for stage in stages] == [False] * (len(stages) - 1) + [True]
    plans = _plans(recipe, "bert")
    assert plans["bert.embeddings.position_embeddings"].grid is not None  # all but norms and biases
    assert all(plan.grid is not None for plan in plans.values())


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("quantgpt-w2e2a8", "bert", "for models that generate text"),
        ("xtc-l6-w1a8", "gpt2", "is for BERT"),
        ("two-stage-w1a8", "bart", "is for BERT"),
    ],
)
def test_a_family_is_for_its_models(name: str, family: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_family(load_recipe(name), ADAPTERS[family])


@pytest.mark.parametrize(
    ("base", "lines", "family", "message"),
    [
        ("quantgpt-w2e2a8", "[weights]\nquantizer = 'twn'", "gpt2", "lsq, lsq-symmetric, laq, found 'twn'"),
        ("quantgpt-w2e2a8", "[distill]\nlogits = 0", "gpt2", "distils logits"),
        ("xtc-l6-w1a8", "[weights]\ngradient = 'clipped'", "bert", "with the gradient identity"),
        ("two-stage-w1a8", "stage = []", "bert", "begins with float activations"),
    ],
)
def test_what_departs_from_a_family(base: str, lines: str, family: str, message: str, tmp_path: Path) -> None:
    text = f"extends = '{base}'\nname = 'mine'\n{lines}\n"
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.toml")
    with pytest.raises(UsageError, match=message):
        check_family(recipe, ADAPTERS[family])
    own = text.replace("name =", "family = 'own'\nname =")
    (tmp_path / "own.toml").write_text(own)
    check_family(load_recipe(tmp_path / "own.toml"), ADAPTERS[family])


TRAINS = """
name = "mine"
summary = "a test"
[weights]
bits = 2
quantizer = "twn"
[embeddings]
bits = 0
[training]
epochs = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('quantizer = "twn"', "", "weights.quantizer is missing"),
        ('quantizer = "twn"', 'quantizer = "tvn"', "found 'tvn'"),
        ("[training]\nepochs = 1", "", "a quantizer is learned or followed in training"),
        ("[training]\nepochs = 1", "[layers]\nkeep = [1]", "[layers] needs [training]"),
        ("epochs = 1", "epochs = 0", "training.epochs"),
        ("epochs = 1", "", "key 'training.epochs' is missing"),
        ("epochs = 1", "epoch = 1", "unknown key 'training.epoch'; did you mean 'epochs'"),
        ("epochs = 1", "epochs = 1\n[layers]\nkeep = [3, 1]", "in rising order, found [3, 1]"),
        ("epochs = 1", "epochs = 1\n[layers]\nkeep = []", "in rising order, found []"),
        ("epochs = 1", "epochs = 1\n[distill]\nlogits = 0", "a weight above 0"),
        ("epochs = 1", "epochs = 1\n[distill]\nlogit = 1", "'distill.logit'; did you mean 'logits'"),
        ("epochs = 1", "epochs = 1\n[activations]\nmode = 'static'", "goes with quantizer"),
        ("epochs = 1", "epochs = 1\n[[stage]]\nname = 'a'\nshare = 0.5", "add up to 1, found 0.5"),
        ("epochs = 1", "epochs = 1\n[[stage]]\nname = 'a'\nshare = 1\nbits = 4", "the recipe's own bits"),
        ("epochs = 1", "epochs = 1\n[[stage]]\nname = 'a'\nshare = 1\naugment = true", "needs [augment]"),
        (
            "epochs = 1",
            "epochs = 1\n[[stage]]\nname = 'a'\nshare = 0.5\n[[stage]]\nname = 'a'\nshare = 0.5",
            "a name of its own",
        ),
        (
            "epochs = 1",
            "epochs = 1\n[[stage]]\nname = 'a'\nshare = 1\ninitialise_from = 'b'",
            "start from one of teacher, found 'b'",
        ),
    ],
)
def test_what_a_training_recipe_cannot_say(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TRAINS)
    assert load_recipe(path).trains
    assert old in TRAINS
    path.write_text(TRAINS.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
