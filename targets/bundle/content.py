"""What goes into a bundle besides code and weights, as an exported folder and the compiled model say it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import FormatError, UsageError
from edgeq.formats.tasks import GENERATING, TASKS
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.generation_config import read_generation_settings
from edgeq.targets.bundle.golden import GoldenRun, golden_runs, golden_source
from edgeq.targets.bundle.host_model import HostModel, bundle_as_host_model, compiled_as_host_model
from edgeq.targets.bundle.interface import input_specs, plain_specs
from edgeq.targets.bundle.model_info import (
    read_config,
    read_end_ids,
    read_model_info,
    read_target_tokens,
    recipe_of,
    source_context,
    within_tables,
)
from edgeq.targets.bundle.text_settings import check_labels, check_outputs, read_text_info, with_pooling
from edgeq.targets.runtime.names import ENCODE, MAIN
from edgeq.targets.runtime.schema import FunctionInfo, GenerationInfo, ModelInfo, SourceInfo, TensorSpec
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, GenerationSettings
from edgeq.targets.runtime.text_info import PLAIN_TEXT, TextInfo

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import CompiledFunction, CompiledModel


@dataclasses.dataclass(frozen=True)
class Content:
    """What goes into a bundle besides code and weights.

    Attributes:
        model: What the model is for.
        functions: Inputs, outputs and state of its functions, without plans.
        golden: The runs of the self-test, in their order.
        recipe: Name and digest of the compression recipe, or None.
        files: Folder from which tokenizer and configuration are copied, or None.
        generation: How a decoder generates text, or None.
        text: How texts become inputs, and what outputs mean.
    """

    model: ModelInfo
    functions: Mapping[str, FunctionInfo]
    golden: Sequence[GoldenRun]
    recipe: dict[str, Any] | None
    files: Path | None
    generation: GenerationInfo | None = None
    text: TextInfo = PLAIN_TEXT


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an exported folder says of its model.

    Attributes:
        folder: The folder.
        config: Its ``config.json``.
        model: What the model is for.
        end_ids: Tokens that end a text.
        settings: How texts are generated.
    """

    folder: Path
    config: dict[str, Any]
    model: ModelInfo
    end_ids: tuple[int, ...]
    settings: GenerationSettings


def check_exported(folder: Path) -> None:
    """Raises UsageError if a folder holds no exported model."""
    if not any((folder / name).is_file() for name in ("model.onnx", "decoder_with_past_model.onnx")):
        raise UsageError(f"{folder} has no model.onnx; give a folder that `edgeq export` wrote")


def read_exported(folder: Path, *, context: int | None) -> Exported:
    """Reads what an exported folder says of its model, before minutes of compiling.

    Raises:
        UsageError: If the model has no such context.
        FormatError: If a file is damaged.
    """
    model = read_model_info(folder, context=context)
    return Exported(folder, read_config(folder), model, read_end_ids(folder), _generation_settings(folder, model))


def describe(
    exported: Exported, models: Sequence[CompiledModel], *, target: Target, host_bundle: Path | None
) -> Content:
    """Returns what goes into a bundle besides code and weights; the golden outputs are computed here.

    Args:
        exported: What the model's folder says.
        models: The model, compiled for each of ``target.kinds``.
        target: What it was compiled for.
        host_bundle: Bundle of the same model for this machine, which saves compiling it again.
    """
    folder, config, compiled = exported.folder, exported.config, models[0]
    model = within_tables(exported.model, config, folder, limit=compiled.limit)
    reads = _source_info(folder, compiled, config, model) if model.task == "seq2seq" else None
    functions = _functions(compiled, config, model, reads)
    check_outputs(model, folder, functions[MAIN].outputs)
    model = with_pooling(model, folder, functions[MAIN].outputs)
    text = _text_info(folder, config, model, functions[MAIN].outputs)
    makes_texts = bool(compiled.state)
    limit = model.max_length or 0
    ends = _possible(exported.end_ids, functions[MAIN].outputs)
    generation = GenerationInfo(limit, ends, reads, exported.settings) if makes_texts else None
    if host_bundle is not None:
        local = bundle_as_host_model(host_bundle, folder, weights=compiled.weights, generation=generation)
    else:
        local = compiled_as_host_model(folder, models, functions=functions, generation=generation, target=target)
    golden = _golden(functions, model, reads, local)
    return Content(model, functions, golden, recipe_of(config), folder, generation, text)


def _possible(tokens: tuple[int, ...], outputs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """Those that the model can give: GPT-2's own end stands in configurations of models with fewer tokens, too."""
    vocabulary = outputs[0].shape[-1]
    return tuple(token for token in tokens if isinstance(vocabulary, int) and token < vocabulary)


def _generation_settings(folder: Path, model: ModelInfo) -> GenerationSettings:
    if model.task not in GENERATING:
        return PLAIN_SETTINGS
    return read_generation_settings(folder, with_source=model.task == "seq2seq")


def _functions(
    compiled: CompiledModel, config: Mapping[str, Any], model: ModelInfo, reads: SourceInfo | None
) -> dict[str, FunctionInfo]:
    """Describes the functions, with the values that their inputs may have."""
    context = reads.context if reads is not None else None

    def info(function: CompiledModel | CompiledFunction, limits: ModelInfo) -> FunctionInfo:
        inputs = input_specs(function.inputs, config, model=limits, source_context=context)
        return FunctionInfo(inputs, plain_specs(function.outputs), plain_specs(function.state), {})

    functions = {MAIN: info(compiled, model)}
    if reads is not None and compiled.encoder is not None:
        functions[ENCODE] = info(compiled.encoder, dataclasses.replace(model, max_length=reads.context))
    return functions


def _source_info(
    folder: Path, compiled: CompiledModel, config: dict[str, Any], model: ModelInfo
) -> SourceInfo:
    """Describes the reading half of an encoder-decoder."""
    if compiled.encoder is None:
        raise UsageError(f"{folder} holds no encoder, but {model.architecture} has one; export the model again")
    tokens, context = read_target_tokens(folder), source_context(folder)
    limits = within_tables(dataclasses.replace(model, max_length=context), config, folder, limit=compiled.encoder.limit)
    return SourceInfo(limits.max_length or context, tokens.start, tokens.forced_first, tokens.forced_last)


def _text_info(folder: Path, config: dict[str, Any], model: ModelInfo, outputs: Sequence[TensorSpec]) -> TextInfo:
    labelled = TASKS[model.task].has_labels
    classes = outputs[0].shape[-1] if labelled else 0
    if not isinstance(classes, int):
        raise FormatError(f"the graph in {folder} does not say how many classes there are; export it again")
    if labelled:
        check_labels(model, folder, classes=classes)
    return read_text_info(folder, config, task=model.task, classes=classes)


def _golden(
    functions: Mapping[str, FunctionInfo], model: ModelInfo, reads: SourceInfo | None, local: HostModel
) -> list[GoldenRun]:
    inputs = functions[MAIN].inputs
    if reads is None or local.encode is None:
        return golden_runs(inputs, model, run=local.main)
    source = golden_source(functions[ENCODE].inputs, model, context=reads.context, encode=local.encode)
    return [source, *golden_runs(inputs, model, run=local.main, source=source)]
