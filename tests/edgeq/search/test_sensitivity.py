"""What rounding one layer does to the output, against the whole model run anew."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.grids import grid_for
from edgeq.quant.scale_search import round_weight, search_scale
from edgeq.recipes import calibration_texts, load_recipe, plan_layers
from edgeq.search.sensitivity import GRIDS, measure_sensitivity, searched


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@torch.no_grad()
def test_blocks_that_are_not_run_again_change_no_figure(
    family: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    depth = {"num_hidden_layers": 3} if family == "bert" else {"n_layer": 3}
    checkpoint = load_checkpoint({"bert": make_bert, "gpt2": make_gpt2}[family](**depth))
    model, adapter, recipe = checkpoint.model, checkpoint.adapter, load_recipe("ptq-w8a8")
    file = tmp_path / "texts.txt"
    words = ["the", "quick", "brown", "fox", "jumps"]
    file.write_text("\n".join(" ".join(one) for one in itertools.product(words, repeat=4)) + "\n")
    texts = calibration_texts(recipe, adapter, tokenizer=checkpoint.tokenizer, data=file)
    batches = list(texts.batches(200, seed=0, most=200))
    plans = plan_layers(recipe, adapter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = {one.name: one for one in measure_sensitivity(model, adapter, plans, batches=batches)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(layers) == len(searched(plans))

    def outputs() -> list[torch.Tensor]:
        return [_output(model, batch) for batch in batches]

    def moved(other: list[torch.Tensor]) -> float:
        return sum(float((one - two).square().sum()) for one, two in zip(other, wanted, strict=True))

    wanted = outputs()
    energy = sum(float(one.square().sum()) for one in wanted)
    for name in [one for one in layers if ".2." in one or ".1." in one]:
        rows = weight_rows(model.get_submodule(name))
        original = rows.clone()
        grid = grid_for(2, GRIDS[2])
        scale = search_scale(original, grid, per_row=True)
        rows.copy_((round_weight(original, scale, grid).float() - grid.zero_point) * scale[:, None])
        expected = moved(outputs()) / energy
        rows.copy_(original)
        assert layers[name].choices[1].error == pytest.approx(expected, rel=1e-4)  # this sums in another order


def _output(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    result = model(**inputs)
    if hasattr(result, "last_hidden_state"):
        mask = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((result.last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)
    return result.logits - result.logits.mean(dim=-1, keepdim=True)
