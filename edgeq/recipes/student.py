"""A recipe that trains, from the float model to the compressed one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from edgeq.distill.sentence import Pooling
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.apply import apply_plans
from edgeq.quant.int8_attention import use_int8_attention
from edgeq.quant.plan import CompressionResult, LayerPlan
from edgeq.quant.trainable import freeze, make_trainable, set_stage, trainable_layers
from edgeq.quant.trainable_layers import TrainableLayer
from edgeq.recipes.apply import compression_result, factorise_model, int8_attention_of, plan_layers
from edgeq.recipes.families import check_family
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.recipes.request import TrainingRequest
from edgeq.recipes.schema import Recipe
from edgeq.recipes.training import objectives, training_settings
from edgeq.recipes.training_sections import AugmentSection
from edgeq.training import (
    StageSettings,
    TaskData,
    TrainingOutcome,
    TrainingSettings,
    encode_rows,
    is_quantized_checkpoint,
    load_pretraining_texts,
    load_task_data,
    start_from,
    train,
)
from edgeq.training.augmentation import AugmentationSettings, augment_rows, neighbours_of, predictions_of
from edgeq.training.rows import read_data


@dataclasses.dataclass(frozen=True)
class Source:
    """A float model with what belongs to it.

    Attributes:
        model: A float32 ``transformers`` model.
        adapter: Its adapter.
        tokenizer: Its tokenizer.
        pooling: How its token states become a sentence embedding, for embedding models.
    """

    model: Any
    adapter: ModelAdapter
    tokenizer: Any
    pooling: Pooling = "mean"


@dataclasses.dataclass(frozen=True)
class MaskedModel:
    """A masked language model and its tokenizer, which know other words for a place in a sentence."""

    model: Any
    tokenizer: Any


@dataclasses.dataclass(frozen=True)
class TrainedStudent:
    """A compressed model after its training.

    Attributes:
        model: The packed model, in evaluation mode.
        adapter: Its adapter.
        result: What became of each layer.
        outcome: What the training came to.
    """

    model: Any
    adapter: ModelAdapter
    result: CompressionResult
    outcome: TrainingOutcome


def train_student(
    source: Source,
    *,
    recipe: Recipe,
    request: TrainingRequest,
    folder: Path,
    teacher: Source | None = None,
    masked: MaskedModel | None = None,
    progress: Progress = silent,
) -> TrainedStudent:
    """Trains a compressed student of a float model.

    Args:
        source: The model that the student is made of; it stays as it is.
        recipe: A recipe that trains.
        request: Data and options.
        folder: Folder of the run.
        teacher: What the student learns from; None is ``source``.
        masked: Where other words come from, if the recipe asks a masked language model for them.
        progress: Told how far the work is.

    Raises:
        UsageError: If recipe, models and data do not fit together.
        UnsupportedError: If the model has a layer that its adapter does not know.
        FormatError: If a weight is not finite, or data or checkpoints are damaged.
        EdgeqError: If the training diverges.
    """
    check_family(recipe, source.adapter)
    pretraining = request.pretrain_data is not None
    settings = training_settings(
        recipe, epochs=request.epochs, budget=request.budget, seed=request.seed, pretraining=pretraining
    )
    kept = kept_layers(recipe.layers, source.adapter)
    guide = teacher or source
    student, adapter = _student(source, kept, reduced=recipe.layers is not None)
    if recipe.factor is not None:
        recipe.factor.settings().plan(student, adapter)  # what does not fit is refused at once
    data = _data(source, recipe, request, settings, masked, progress)
    compared = _compared(kept, source.adapter, guide.adapter)
    losses = objectives(
        recipe, student=adapter, teacher=guide.adapter, kept=compared, pretraining=pretraining
    )
    plans = plan_layers(recipe, adapter, factorise_model(student, recipe, adapter, progress=progress))
    low_bit = any(plan.grid is not None for plan in plans)
    _prepare(student, plans if low_bit else [], request, progress)
    use_int8_attention(student, int8_attention_of(recipe, adapter))
    outcome = train(
        student,
        guide.model,
        data=data,
        settings=settings,
        objective=losses,
        out=folder,
        resume=request.resume,
        begin_stage=_begin_stage if low_bit else None,
        pooling=source.pooling,
        progress=progress,
    )
    result = _packed(student, recipe, adapter, plans, low_bit=low_bit, progress=progress)
    return TrainedStudent(student.eval(), adapter, result, outcome)


def _prepare(student: Any, plans: list[LayerPlan], request: TrainingRequest, progress: Progress) -> None:
    """Puts the student into its training form, with the weights of an earlier training if one is asked for."""
    quantized = request.start_from is not None and is_quantized_checkpoint(request.start_from)
    if request.start_from is not None and not quantized:
        start_from(student, request.start_from)
    if plans:
        make_trainable(student, plans, progress=progress)
    if request.start_from is not None and quantized:
        start_from(student, request.start_from)


def _compared(
    kept: dict[str, tuple[int, ...]], source: ModelAdapter, guide: ModelAdapter
) -> dict[str, tuple[int, ...]]:
    """Compares each layer with the one it was made of; with a teacher of another depth, at even distances."""
    depths = {stack.name: stack.depth for stack in guide.stacks}
    return {stack.name: kept[stack.name] for stack in source.stacks if depths.get(stack.name) == stack.depth}


def _student(source: Source, kept: dict[str, tuple[int, ...]], *, reduced: bool) -> tuple[Any, ModelAdapter]:
    if reduced:
        return reduce_layers(source.model, source.adapter, kept)
    return copy.deepcopy(source.model), source.adapter


def _data(
    source: Source,
    recipe: Recipe,
    request: TrainingRequest,
    settings: TrainingSettings,
    masked: MaskedModel | None,
    progress: Progress,
) -> TaskData:
    progress("reading the data", 0, 1)
    # A recipe's length is a wish: a model with fewer positions reads as much as it can.
    longest = min(settings.max_length, source.adapter.max_positions)
    data = load_task_data(
        request.train_data,
        request.eval_data,
        tokenizer=source.tokenizer,
        adapter=source.adapter,
        max_length=longest,
        task=request.task,
    )
    if recipe.augment is not None and any(stage.augmented for stage in settings.stages):
        data = _augmented(data, source, recipe.augment, request, settings, masked, progress)
    if request.pretrain_data is not None:
        texts = load_pretraining_texts(
            request.pretrain_data,
            tokenizer=source.tokenizer,
            adapter=source.adapter,
            max_length=longest,
            first=len(data.train) + len(data.augmented or ()),
        )
        data = dataclasses.replace(data, pretraining=texts)
    progress("reading the data", 1, 1)
    return data


def _augmented(
    data: TaskData,
    source: Source,
    section: AugmentSection,
    request: TrainingRequest,
    settings: TrainingSettings,
    masked: MaskedModel | None,
    progress: Progress,
) -> TaskData:
    wishes = AugmentationSettings(
        copies=section.copies, candidates=section.candidates, replace=section.replace, seed=settings.seed
    )
    if masked is not None:
        candidates = predictions_of(masked.model, masked.tokenizer, count=section.candidates)
    else:
        candidates = neighbours_of(source.model, source.tokenizer, count=section.candidates)
    rows = augment_rows(read_data(request.train_data, split="train"), candidates, wishes, progress=progress)
    more = encode_rows(
        rows,
        tokenizer=source.tokenizer,
        adapter=source.adapter,
        max_length=min(settings.max_length, source.adapter.max_positions),
        task=data.task,
        first=len(data.train),
    )
    return dataclasses.replace(data, augmented=more)


def _begin_stage(model: nn.Module, stage: StageSettings) -> None:
    """Sets bits and activations; what quantizers have learned is kept where a stage changes neither."""
    layers = [layer for layer in trainable_layers(model).values() if isinstance(layer, TrainableLayer)]
    bits = stage.bits
    if bits is not None and stage.initialise_from is None:
        arrived = all(_bits_in(layer, bits) == layer.quantizer.bits for layer in layers)
        bits = None if arrived else bits
    set_stage(model, bits=bits, activations=stage.activations)


def _bits_in(layer: TrainableLayer, bits: int) -> int:
    planned = layer.plan.grid.bits if layer.plan.grid is not None else bits
    return max(bits, planned)


def _packed(
    student: Any,
    recipe: Recipe,
    adapter: ModelAdapter,
    plans: list[LayerPlan],
    *,
    low_bit: bool,
    progress: Progress,
) -> CompressionResult:
    records = freeze(student, progress=progress) if low_bit else apply_plans(student, plans, progress=progress)
    return compression_result(student, recipe, adapter, records)
