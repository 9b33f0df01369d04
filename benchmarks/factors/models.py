"""BERT-base and GPT-2 small with random weights, dense and factorised: their sizes and shapes are real."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.factors.calls import SEED
from benchmarks.true_size.models import save_random
from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.compress import compress_model
from edgeq.factor.evaluation import call_tokens
from edgeq.factor.insert import insert_factor_modules
from edgeq.factor.names import layer_names
from edgeq.factor.prepare import prepare_for_packing
from edgeq.quant.apply import apply_plans
from edgeq.recipes import load_recipe
from edgeq.recipes.apply import compression_result, plan_layers

_SPREAD = 0.02


@dataclasses.dataclass(frozen=True)
class Setup:
    """One model of the benchmark.

    Attributes:
        family: ``bert`` or ``gpt2``.
        recipe: Its recipe; None for the dense float32 model.
        compiled: Whether edgeq runs it; otherwise ONNX Runtime does.
    """

    family: str
    recipe: str | None
    compiled: bool = True


SETUPS = {
    "BERT-base, float32, ONNX Runtime": Setup("bert", None, compiled=False),
    "BERT-base, ptq-w8a8": Setup("bert", "ptq-w8a8"),
    "BERT-base, tucker-iii-64": Setup("bert", "tucker-iii-64"),
    "BERT-base, tucker-iv-72-384": Setup("bert", "tucker-iv-72-384"),
    "BERT-base, tucker-iv-72-384-w8a8-folded": Setup("bert", "tucker-iv-72-384-w8a8-folded"),
    "GPT-2 small, float32, ONNX Runtime": Setup("gpt2", None, compiled=False),
    "GPT-2 small, kngpt2": Setup("gpt2", "kngpt2"),
}


def make_checkpoint(setup: Setup, dense: Path, out: Path) -> None:
    """Writes a setup's checkpoint: random factors of the recipe's shapes, packed if the recipe packs them.

    Args:
        setup: What to make.
        dense: Folder of the dense model, written if it is not there.
        out: Folder to write.
    """
    if not dense.is_dir():
        _save_dense(setup.family, dense)
    if setup.recipe is None:
        return
    recipe = load_recipe(setup.recipe)
    if recipe.factor is None:
        compress_model(dense, out, recipe=recipe)
        return
    checkpoint = load_checkpoint(dense)
    model, adapter = checkpoint.model, checkpoint.adapter
    insert_factor_modules(model, recipe.factor.settings().plan(model, adapter))
    model.config.tie_word_embeddings = False
    _randomise(model)
    if recipe.weights.bits:
        prepare_for_packing(model, fold=recipe.factor.fold, tokens=call_tokens(adapter))
    plans = plan_layers(recipe, adapter, layer_names(model, adapter))
    # Random weights are rounded once; nothing is trained.
    records = apply_plans(model, [dataclasses.replace(plan, method=None) for plan in plans])
    result = compression_result(model, recipe, adapter, records)
    save_checkpoint(model, checkpoint.tokenizer, out, result=result, evaluate=recipe.factor.evaluate)


def _save_dense(family: str, folder: Path) -> None:
    if family == "gpt2":
        save_random("gpt2-small", folder)
        return
    torch.manual_seed(SEED)
    config = transformers.BertConfig(num_labels=2)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(config.vocab_size - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)


@torch.no_grad()
def _randomise(model: Any) -> None:
    """Numbers of a usual size everywhere: times do not depend on them, denormal ones would."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, _SPREAD, generator=generator)
