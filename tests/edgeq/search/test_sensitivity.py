"""What rounding one layer does to the output, against the whole model run anew."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.distill import FeatureReader, Wanted
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.grids import grid_for
from edgeq.quant.scale_search import round_weight, search_scale
from edgeq.recipes import calibration_texts, load_recipe, plan_layers
from edgeq.search.rounding import GRIDS, FeedbackRounding, nearest
from edgeq.search.sensitivity import measure_sensitivity, searched


def _float_model(source: Path, folder: Path) -> tuple[Any, Any, Any, Any]:
    checkpoint, recipe = load_checkpoint(source), load_recipe("ptq-w8a8")
    file = folder / "texts.txt"
    words = ["the", "quick", "brown", "fox", "jumps"]
    file.write_text("\n".join(" ".join(one) for one in itertools.product(words, repeat=4)) + "\n")
    texts = calibration_texts(recipe, checkpoint.adapter, tokenizer=checkpoint.tokenizer, data=file)
    batches = list(texts.batches(200, seed=0, most=200))
    return checkpoint.model, checkpoint.adapter, plan_layers(recipe, checkpoint.adapter), batches


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_error_feedback_leaves_less_of_the_errors_that_it_sees(
    family: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    """On the texts that it reads; a table that is a head gains by it too, and a mere look-up has the nearest levels."""
    model, adapter, plans, batches = _float_model({"bert": make_bert, "gpt2": make_gpt2}[family](), tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blocks = [stack.block(index) for stack in adapter.stacks for index in range(stack.depth)]
    groups = [[plan.name for plan in plans if plan.name.startswith(f"{block}.")] for block in blocks]
    reader = FeatureReader(model.eval(), adapter, wanted=Wanted())
    fed_back = FeedbackRounding(model, plans, groups=groups, run=lambda _model, batch: reader(batch), batches=batches)
    near, fed = (
        measure_sensitivity(model, adapter, plans, batches=batches, round_to=how) for how in (nearest, fed_back)
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    heads = {plan.tied_to for plan in plans if plan.tied_to is not None}
    assert heads == ({"transformer.wte"} if family == "gpt2" else set())
    errors = [(one, two) for one, two in zip(near, fed, strict=True) if one.kind == "linear" or one.name in heads]
    for place, bits in enumerate(GRIDS):
        one, two = (sum(pair[side].choices[place].error for pair in errors) for side in (0, 1))
        assert 0 < two < 0.7 * one, bits
    looked_up = [(one, two) for one, two in zip(near, fed, strict=True) if (one, two) not in errors]
    assert all(one == two for one, two in looked_up)
    assert bool(looked_up) == (family == "bert")


def test_a_model_of_one_value_is_told_apart_by_that_value(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """It has no likelihoods: one value alone is always certain."""
    source = make_bert("BertForSequenceClassification", num_labels=1)
    model, adapter, plans, batches = _float_model(source, tmp_path)
    layers = measure_sensitivity(model, adapter, plans, batches=batches)
    assert all(layer.choices[0].error > 0 for layer in layers)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@torch.no_grad()
def test_blocks_that_are_not_run_again_change_no_figure(
    family: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    depth = {"num_hidden_layers": 3} if family == "bert" else {"n_layer": 3}
    source = {"bert": make_bert, "gpt2": make_gpt2}[family](**depth)
    model, adapter, plans, batches = _float_model(source, tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = {one.name: one for one in measure_sensitivity(model, adapter, plans, batches=batches)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(layers) == len(searched(plans))

    def outputs() -> list[torch.Tensor]:
        return [_output(model, batch) for batch in batches]

    wanted = outputs()
    for name in [one for one in layers if ".2." in one or ".1." in one]:
        rows = weight_rows(model.get_submodule(name))
        original = rows.clone()
        grid = grid_for(2, GRIDS[2])
        scale = search_scale(original, grid, per_row=True)
        rows.copy_((round_weight(original, scale, grid).float() - grid.zero_point) * scale[:, None])
        expected = _distance(outputs(), wanted, embeds=family == "bert")
        rows.copy_(original)
        assert layers[name].choices[1].error == pytest.approx(expected, rel=1e-4)  # this sums in another order


def _output(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    result = model(**inputs)
    if hasattr(result, "last_hidden_state"):
        mask = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((result.last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)
    return result.logits


def _distance(found: list[torch.Tensor], wanted: list[torch.Tensor], *, embeds: bool) -> float:
    if embeds:
        pairs = zip(found, wanted, strict=True)
        moved = sum(float((one - two).square().sum()) for one, two in pairs)
        return moved / sum(len(one) for one in wanted)
    one, two = (torch.cat([logits.flatten(0, -2) for logits in every]) for every in (found, wanted))
    likely = torch.distributions.Categorical(logits=two.double())
    return float(torch.distributions.kl_divergence(likely, torch.distributions.Categorical(logits=one.double())).mean())
