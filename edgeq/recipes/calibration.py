"""A recipe that calibrates, from the float model and texts without labels to the compressed model."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeq.distill import FeatureReader, Objective, ObjectiveSettings
from edgeq.distill.sentence import Pooling
from edgeq.errors import UnsupportedError
from edgeq.formats.tasks import TASKS
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.calibrate import (
    Batch,
    BlockReconstruction,
    CalibrationState,
    Distill,
    ErrorFeedback,
    Method,
    Rates,
    Smooth,
    calibrate,
)
from edgeq.quant.int8_attention import use_int8_attention
from edgeq.quant.plan import CompressionResult
from edgeq.quant.trainable import make_trainable
from edgeq.recipes.apply import compression_result, factorise_model, int8_attention_of, plan_layers
from edgeq.recipes.calibrate_section import (
    BlockReconstructionSection,
    CalibrateSection,
    CalibrationDistillSection,
    ErrorFeedbackSection,
    RatesSection,
    SmoothSection,
)
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.recipes.schema import Recipe
from edgeq.training.bfloat16 import multiplies_bfloat16
from edgeq.training.unlabelled import MOST_UNKNOWN, UnlabelledTexts, load_unlabelled_texts

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")


def default_texts() -> Path:
    """Returns the file of texts that is read where a user gives none."""
    return Path(str(resources.files("edgeq.recipes").joinpath("calibration_texts.txt")))


@dataclasses.dataclass(frozen=True)
class CalibratedModel:
    """A compressed model after its calibration.

    Attributes:
        model: The packed model: the one that was given, or one of fewer blocks.
        adapter: Its adapter.
        result: What became of each layer.
    """

    model: Any
    adapter: ModelAdapter
    result: CompressionResult


def calibrate_model(
    model: Any,
    recipe: Recipe,
    adapter: ModelAdapter,
    *,
    tokenizer: Any,
    data: str | Path | None = None,
    pooling: Pooling = "mean",
    progress: Progress = silent,
    remark: Callable[[str], None] | None = None,
) -> CalibratedModel:
    """Calibrates a float model and compresses it, in place where it keeps its blocks.

    Args:
        model: A float32 ``transformers`` model.
        recipe: A recipe with ``[calibrate]``.
        adapter: The adapter of the model.
        tokenizer: Its tokenizer.
        data: Texts without labels; None for the default set.
        pooling: How token states become the embedding of a text.
        progress: Told how far the work is.
        remark: Told how many texts were left out.

    Raises:
        UsageError: If the texts are of no use; nothing was changed then.
        UnsupportedError: If the model has a layer that its adapter does not know, or no blocks for a method.
        FormatError: If a weight is not finite, or a row of the data is damaged.
        EdgeqError: If a loss is not a number.
    """
    section = _section_of(recipe, adapter)
    texts = calibration_texts(recipe, adapter, tokenizer=tokenizer, data=data)
    if texts.unknown and data is not None and remark is not None:
        remark(
            f"{data}: {texts.unknown} of {texts.unknown + len(texts)} calibration texts were left out, because more "
            f"than {MOST_UNKNOWN:.0%} of their tokens are unknown to the tokenizer"
        )
    model.eval()
    whole = _Whole(model, adapter, {} if recipe.layers is None else kept_layers(recipe.layers, adapter))
    if whole.kept:
        model, adapter = reduce_layers(model, adapter, whole.kept)
    plans = plan_layers(recipe, adapter, factorise_model(model, recipe, adapter, progress=progress))
    run = _runner(adapter)
    if "smooth" in section.methods:
        smooth = Smooth(**(section.smooth or SmoothSection()).model_dump())
        smooth.apply(model, adapter.migrations, texts=texts, run=run, seed=section.seed, progress=progress)
    reference = copy.deepcopy(model)
    make_trainable(model, plans, progress=progress)
    use_int8_attention(model, int8_attention_of(recipe, adapter))
    state = CalibrationState(
        model=model,
        reference=reference,
        plans=plans,
        texts=texts,
        run=run,
        stacks=adapter.stacks,
        seed=section.seed,
        teacher=whole.model if whole.kept else None,
    )
    records = calibrate(state, _methods(section, adapter, whole, pooling), progress=progress)
    return CalibratedModel(model, adapter, compression_result(model, recipe, adapter, records))


def _section_of(recipe: Recipe, adapter: ModelAdapter) -> CalibrateSection:
    section = recipe.calibrate
    if section is None:
        raise ValueError(f"recipe {recipe.name!r} does not calibrate")
    if "block-reconstruction" in section.methods and not adapter.stacks:
        raise UnsupportedError(
            f"{adapter.architecture} runs one block many times, which block-reconstruction cannot train against one "
            "output; take it out of the recipe's [calibrate]"
        )
    return section


@dataclasses.dataclass(frozen=True)
class _Whole:
    """The float model with all of its blocks, and those of each stack that are kept; none are named where all are."""

    model: Any
    adapter: ModelAdapter
    kept: Mapping[str, tuple[int, ...]]


def calibration_texts(
    recipe: Recipe, adapter: ModelAdapter, *, tokenizer: Any, data: str | Path | None
) -> UnlabelledTexts:
    """Reads the texts that a recipe is to be calibrated with.

    Raises:
        UsageError: If the texts are missing, too few, or unknown to the tokenizer.
        FormatError: If a row is damaged.
    """
    section = recipe.calibrate
    longest = CalibrateSection(method="error-feedback").max_length if section is None else section.max_length
    source = default_texts() if data is None else data
    return load_unlabelled_texts(source, tokenizer=tokenizer, adapter=adapter, max_length=longest)


def _methods(section: CalibrateSection, adapter: ModelAdapter, whole: _Whole, pooling: Pooling) -> list[Method]:
    made: dict[str, Callable[[], Method]] = {
        "error-feedback": lambda: ErrorFeedback(**(section.error_feedback or ErrorFeedbackSection()).model_dump()),
        "block-reconstruction": lambda: _block_reconstruction(
            section.block_reconstruction or BlockReconstructionSection()
        ),
        "distill": lambda: _distill(section.distill or CalibrationDistillSection(), adapter, whole, pooling),
    }
    return [made[name]() for name in section.methods if name in made]


def _rates(section: RatesSection) -> Rates:
    return Rates(section.weights, section.scales, section.others)


def _block_reconstruction(section: BlockReconstructionSection) -> BlockReconstruction:
    return BlockReconstruction(section.tokens, section.steps, section.batch_tokens, _rates(section.rates))


def _distill(
    section: CalibrationDistillSection, adapter: ModelAdapter, whole: _Whole, pooling: Pooling
) -> Distill:
    teacher = whole.adapter if whole.kept else adapter
    embeds = adapter.task == "embed"
    losses = ObjectiveSettings(
        logits=section.logits, similarities=section.similarities if embeds else 0.0, hidden=section.hidden
    )

    @contextlib.contextmanager
    def loss_of(model: nn.Module, reference: nn.Module) -> Iterator[Callable[[Batch], torch.Tensor]]:
        objective = Objective(losses, student=adapter, teacher=teacher, kept=whole.kept)
        own = FeatureReader(model, adapter, wanted=objective.student_wants, pooling=pooling)
        other = FeatureReader(reference, teacher, wanted=objective.teacher_wants, pooling=pooling)

        def loss(batch: Batch) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=section.bf16 and multiplies_bfloat16("cpu")):
                with torch.no_grad():
                    wanted = other(batch)
                made = own(batch)
            return objective(batch, made, wanted).total

        try:
            yield loss
        finally:
            own.close()
            other.close()

    return Distill(loss_of, section.steps, section.batch_tokens, _rates(section.rates))


def _runner(adapter: ModelAdapter) -> Callable[[nn.Module, Batch], Any]:
    options = {"use_cache": False} if TASKS[adapter.task].generates else {}

    def run(model: nn.Module, batch: Batch) -> Any:
        return model(**{name: batch[name] for name in _INPUTS if name in batch}, **options)

    return run


