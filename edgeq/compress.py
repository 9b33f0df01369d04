"""The first stage of the main job: a float checkpoint in, a compressed checkpoint out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from edgeq.checkpoint import (
    OUTPUT,
    Checkpoint,
    load_checkpoint,
    load_tokenizer,
    save_checkpoint,
    save_float_checkpoint,
)
from edgeq.distill.sentence import Pooling
from edgeq.errors import FormatError, UsageError
from edgeq.files import check_new_folder
from edgeq.finite import check_finite
from edgeq.formats.sentence_model import Normalize
from edgeq.hub import resolve_source
from edgeq.progress import Progress, silent
from edgeq.quant.plan import CompressionResult
from edgeq.recipes import (
    MaskedModel,
    Recipe,
    Source,
    TrainingRequest,
    apply_recipe,
    calibrate_model,
    check_calibration_data,
    check_request,
    load_recipe,
    train_student,
)
from edgeq.results import TrainingResult
from edgeq.training import TrainingOutcome
from edgeq.training.outcome import RESULT_FILE
from edgeq.training.processes import first_process_writes
from edgeq.vocabulary import PrunedVocabulary, prune_as, prune_vocabulary

FLOAT_BITS = 32
"""Bits in the record of a layer that is not compressed."""


def compress_model(
    source: str | Path,
    out: str | Path,
    *,
    recipe: str | Path | Recipe,
    task: str | None = None,
    training: TrainingRequest | None = None,
    calibration_data: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    remark: Callable[[str], None] | None = None,
) -> CompressionResult:
    """Compresses a model and writes the result as a checkpoint folder.

    Args:
        source: A model folder, or the name of a model on the Hugging Face hub.
        out: Folder to write; an earlier output of this function is replaced when all is done.
        recipe: A recipe, the name of a built-in one, or a recipe file.
        task: What to make of the model, by ``transformers``' name, such as ``text-classification``; None takes what
            it was made for, and the encoder of one that was only pre-trained.
        training: Data and settings, for recipes that train.
        calibration_data: Texts without labels (``.txt``, ``.tsv``, ``.jsonl``), for recipes that calibrate; None for
            the texts in many languages that come with edgeq.
        force: Replace ``out`` whatever it holds.
        progress: Told how far the work is.
        remark: Told what the user should know of how the model was read.

    Returns:
        What became of each layer.

    Raises:
        UsageError: If the source, the recipe or training data is missing, the recipe makes no sense, or ``out`` holds
            something that this function did not write.
        UnsupportedError: If the architecture is not implemented.
        FormatError: If the source is damaged.
        EdgeqError: If a training diverges.
    """
    progress = progress or silent
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_request(resolved, training)
    check_calibration_data(resolved, calibration_data)
    folder = resolve_source(source)
    check_new_folder(Path(out), OUTPUT, force=force, sources=[folder])
    checkpoint = _read_source(folder, task, progress, remark)
    pruned = _prune(checkpoint, resolved, progress)
    if resolved.calibrates:
        model, result = _calibrate(checkpoint, resolved, calibration_data, progress, remark)
    elif training is not None:
        model, result = _train(checkpoint, resolved, training, Path(out), task=task, pruned=pruned, progress=progress)
    else:
        model = checkpoint.model
        result = apply_recipe(model, resolved, checkpoint.adapter, progress=progress)
    if pruned is not None:
        result = dataclasses.replace(result, vocabulary=pruned.record)
    with contextlib.nullcontext(True) if training is None else first_process_writes() as writes:
        if writes:
            progress("writing the checkpoint", 0, 1)
            _write(checkpoint, resolved, model, result, out, pruned=pruned, force=force)
            progress("writing the checkpoint", 1, 1)
    return result


def _prune(checkpoint: Checkpoint, recipe: Recipe, progress: Progress) -> PrunedVocabulary | None:
    section = recipe.vocabulary
    return None if section is None else prune_vocabulary(checkpoint, section, progress=progress)


def _write(
    checkpoint: Checkpoint,
    recipe: Recipe,
    model: Any,
    result: CompressionResult,
    out: str | Path,
    *,
    pruned: PrunedVocabulary | None,
    force: bool,
) -> None:
    generation = None if pruned is None else pruned.generation
    kept: dict[str, Any] = {"settings_from": checkpoint.folder, "generation": generation, "force": force}
    if recipe.factor is not None or any(layer.bits < FLOAT_BITS for layer in result.layers):
        evaluate = "auto" if recipe.factor is None else recipe.factor.evaluate
        save_checkpoint(model, checkpoint.tokenizer, out, result=result, evaluate=evaluate, **kept)
    else:
        # Without quantization: a plain float model, which others may take as a source or teacher.
        save_float_checkpoint(model, checkpoint.tokenizer, out, **kept)


def training_folder(out: str | Path) -> Path:
    """Returns where the training of an output keeps its checkpoints and its log, if nobody says otherwise."""
    out = Path(out)
    return out.with_name(f"{out.name}-training")


def training_outcome(out: str | Path, request: TrainingRequest) -> TrainingOutcome:
    """Returns what the finished training of an output came to.

    Raises:
        FormatError: If its ``result.json`` is damaged.
    """
    folder = Path(request.folder) if request.folder is not None else training_folder(out)
    return TrainingOutcome(folder, TrainingResult.read(folder / RESULT_FILE))


def _train(
    checkpoint: Checkpoint,
    recipe: Recipe,
    request: TrainingRequest,
    out: Path,
    *,
    task: str | None,
    pruned: PrunedVocabulary | None,
    progress: Progress,
) -> tuple[Any, CompressionResult]:
    other = None if request.teacher is None else _load_float(resolve_source(request.teacher), task)
    if other is not None and pruned is not None:
        prune_as(other, pruned)
    teacher = None if other is None else _source(other)
    masked = None if request.augment_model is None else _masked_model(resolve_source(request.augment_model))
    student = train_student(
        _source(checkpoint),
        recipe=recipe,
        request=request,
        folder=Path(request.folder) if request.folder is not None else training_folder(out),
        teacher=teacher,
        masked=masked,
        progress=progress,
    )
    return student.model, student.result


def _calibrate(
    checkpoint: Checkpoint,
    recipe: Recipe,
    data: str | Path | None,
    progress: Progress,
    remark: Callable[[str], None] | None,
) -> tuple[Any, CompressionResult]:
    source = _source(checkpoint)
    calibrated = calibrate_model(
        source.model,
        recipe,
        source.adapter,
        tokenizer=source.tokenizer,
        data=data,
        pooling=source.pooling,
        progress=progress,
        remark=remark,
    )
    return calibrated.model, calibrated.result


def _read_source(
    folder: Path, task: str | None, progress: Progress, remark: Callable[[str], None] | None
) -> Checkpoint:
    progress("loading the model", 0, 1)
    checkpoint = _load_float(folder, task)
    if remark is not None:
        for line in checkpoint.remarks:
            remark(line)
    progress("loading the model", 1, 1)
    return checkpoint


def _load_float(folder: Path, task: str | None) -> Checkpoint:
    checkpoint = load_checkpoint(folder, task=task)
    if checkpoint.manifest is not None:
        raise UsageError(
            f"{folder} is compressed already ({checkpoint.manifest.recipe}); give the float model"
        )
    return checkpoint


def _source(checkpoint: Checkpoint) -> Source:
    return Source(checkpoint.model, checkpoint.adapter, checkpoint.tokenizer, trained_pooling(checkpoint))


def trained_pooling(checkpoint: Checkpoint) -> Pooling:
    """Returns how token states become a sentence embedding where losses on it are computed: ``mean`` or ``cls``.

    Raises:
        UsageError: If the model does it in another way.
    """
    pooling: Any = "mean"
    if checkpoint.adapter.task == "embed" and checkpoint.sentence.pooling is not None:
        modes, steps = checkpoint.sentence.pooling.modes, checkpoint.sentence.steps
        if modes not in (("mean",), ("cls",)) or any(not isinstance(step, Normalize) for step in steps):
            found = [*modes, *(type(step).__name__ for step in steps)]
            raise UsageError(
                f"{checkpoint.folder} makes embeddings by {', '.join(found)}, which is not trained; mean and cls are, "
                "with or without Normalize"
            )
        pooling = modes[0]
    chosen: Pooling = pooling
    return chosen


def _masked_model(folder: Path) -> MaskedModel:
    try:
        model, info = transformers.AutoModelForMaskedLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers reports files that disagree by whatever then fails
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"the masked language model in {folder} cannot be loaded: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        # transformers would predict words with random weights.
        raise UsageError(f"{folder} holds no masked language model: it lacks {missing[0]!r}; give another one")
    check_finite(model.named_parameters(), where=str(folder))
    return MaskedModel(model.eval(), load_tokenizer(folder))

