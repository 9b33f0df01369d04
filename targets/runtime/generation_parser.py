"""How a model generates text, in a manifest: context, caches, source and settings."""

from __future__ import annotations

import math

from edgeq.errors import FormatError, UsageError
from edgeq.formats.tasks import GENERATING
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.names import ENCODE
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.schema import (
    DECODER_INPUTS,
    ITEM_BYTES,
    SOURCE_INPUTS,
    SOURCE_STATE,
    TARGET_INPUTS,
    FunctionInfo,
    GenerationInfo,
    Manifest,
    SourceInfo,
    TensorSpec,
)
from edgeq.targets.runtime.settings import Filters, GenerationSettings
from edgeq.targets.runtime.tensor_parser import MAX_TENSOR_BYTES

_STATE_SIZES = {"batch", "context", "context_blocks"}
_SOURCE_SIZES = {"batch", "source_context", "source_context_blocks"}
_STATE_TYPES = ("float16", "float32", "int8")


def parse_generation(table: JsonTable) -> GenerationInfo:
    """Reads the table ``generation``; :func:`check_generation` compares it with the rest.

    Raises:
        FormatError: If something is missing, of a wrong type or out of range.
    """
    context = table.integer("context", at_least=1)
    end_ids = table.sequence("end_ids")
    if not all(type(token) is int for token in end_ids):
        raise FormatError(f"{table.where}: 'end_ids' must be a list of integers, found {end_ids!r}")
    source = None if table.value("source") is None else _parse_source(table.table("source"))
    settings = _parse_settings(table.table("settings"), with_source=source is not None)
    return GenerationInfo(context, tuple(end_ids), source, settings)


def _parse_source(table: JsonTable) -> SourceInfo:
    return SourceInfo(
        context=table.integer("context", at_least=1),
        start_id=table.integer("start_id"),
        forced_first=None if table.value("forced_first") is None else table.integer("forced_first"),
        forced_last=None if table.value("forced_last") is None else table.integer("forced_last"),
    )


def _parse_settings(table: JsonTable, *, with_source: bool) -> GenerationSettings:
    sampling, beams = table.table("sampling"), table.table("beams")
    try:
        settings = GenerationSettings(
            sampling=Sampling(
                temperature=sampling.number("temperature"),
                top_k=sampling.integer("top_k"),
                top_p=sampling.number("top_p"),
                repetition_penalty=sampling.number("repetition_penalty"),
                seed=sampling.integer("seed"),
            ),
            beams=Beams(beams.integer("count"), beams.number("length_penalty"), beams.value("early_stopping")),
            no_repeat_ngram_size=table.integer("no_repeat_ngram_size"),
            min_length=table.integer("min_length"),
            max_length=_optional(table, "max_length", at_least=1),
            min_new_tokens=_optional(table, "min_new_tokens", at_least=0),
            max_new_tokens=_optional(table, "max_new_tokens", at_least=1),
            filters=_filters(table),
            banned_ids=tuple(table.sequence("banned_ids")) if "banned_ids" in table.items else (),
            renormalize_logits=table.value("renormalize_logits") if "renormalize_logits" in table.items else False,
        )
    except UsageError as error:
        raise FormatError(f"{table.where}: {error}") from error
    if settings.beams.count > 1 and (not with_source or settings.sampling.temperature != 0):
        raise FormatError(f"{table.where}: beam search is for encoder-decoders, and does no sampling")
    return settings


def _filters(table: JsonTable) -> Filters:
    """Bundles of older releases have none."""
    if "filters" not in table.items:
        return Filters()
    filters = table.table("filters")
    return Filters(filters.integer("top_k"), filters.number("top_p"))


def _optional(table: JsonTable, key: str, *, at_least: int) -> int | None:
    return None if table.value(key) is None else table.integer(key, at_least=at_least)


def check_generation(manifest: Manifest) -> None:
    """Checks that a decoder has exactly the interface that the runtimes drive, and caches of bounded size.

    Raises:
        FormatError: If not, or if a model that makes no text has parts of one that does.
    """
    generation, encoder = manifest.generation, manifest.functions.get(ENCODE)
    if (generation is not None) != (manifest.model.task in GENERATING):
        raise FormatError(f"a model for {manifest.model.task!r} and 'generation' do not belong together")
    if generation is None:
        if encoder is not None or manifest.state:
            raise FormatError(f"{ENCODE!r} and a state belong to models that generate text")
        return
    sourced = {manifest.model.task == "seq2seq", generation.source is not None, encoder is not None}
    if len(sourced) != 1:
        raise FormatError(
            f"a model for {manifest.model.task!r}, its encoder input and {ENCODE!r} do not belong together"
        )
    wanted = DECODER_INPUTS if generation.source is None else TARGET_INPUTS
    _check_interface("a decoder", manifest.inputs, wanted)
    (*others, logits) = manifest.outputs
    vocabulary = logits.shape[-1]
    if others or logits.dtype != "float32" or logits.shape != ("batch", vocabulary) or isinstance(vocabulary, str):
        raise FormatError("the output of a decoder is one row of float32 logits for each sequence")
    ids = manifest.inputs[0]
    if (ids.minimum, ids.maximum) != (0, vocabulary - 1):
        raise FormatError(f"ids of a decoder must lie in 0..{vocabulary - 1}, found {ids.minimum}..{ids.maximum}")
    if manifest.model.max_length != generation.context:
        raise FormatError(f"'max_length' must be the context {generation.context}")
    if any(not 0 <= token < vocabulary for token in generation.end_ids):
        raise FormatError(f"'end_ids' must lie in 0..{vocabulary - 1}, found {generation.end_ids}")
    if any(not 0 <= token < vocabulary for token in generation.settings.banned_ids):
        raise FormatError(f"'banned_ids' must lie in 0..{vocabulary - 1}, found {generation.settings.banned_ids}")
    _check_state(manifest.state, encoder.state if encoder is not None else ())
    for spec in manifest.state:
        size = math.prod(generation.state_shape(spec.shape, 1)) * ITEM_BYTES[spec.dtype]
        if size > MAX_TENSOR_BYTES:
            raise FormatError(f"cache {spec.name!r} takes {size} bytes a sequence, which no machine has")
    if generation.source is not None and encoder is not None:
        _check_source(generation.source, encoder, manifest.inputs[-1], vocabulary)


def _check_state(state: tuple[TensorSpec, ...], of_source: tuple[TensorSpec, ...]) -> None:
    """Caches are of the sizes that the runtimes know, and ``encode`` fills those of the encoder input."""
    if not state:
        raise FormatError("a decoder has caches, 'state' is empty")
    if of_source != tuple(spec for spec in state if spec.name.startswith(SOURCE_STATE)):
        found = [spec.name for spec in of_source]
        raise FormatError(f"the state of {ENCODE!r} must be the caches of the encoder input, found {found}")
    for spec in state:
        names = {size for size in spec.shape if isinstance(size, str)}
        sizes = _SOURCE_SIZES if spec in of_source else _STATE_SIZES
        if spec.shape[:1] != ("batch",) or not names <= sizes or spec.dtype not in _STATE_TYPES:
            raise FormatError(
                f"cache {spec.name!r} must be floats or int8 [batch, ...], found {spec.dtype} {list(spec.shape)}"
            )


def _check_source(source: SourceInfo, encoder: FunctionInfo, lengths: TensorSpec, vocabulary: int) -> None:
    """``encode`` has exactly the interface that the runtimes drive, and no value leads outside its caches."""
    _check_interface("an encoder", encoder.inputs, SOURCE_INPUTS)
    ranges = [(0, vocabulary - 1), (0, 1), (1, source.context)]
    for spec, allowed in zip((*encoder.inputs, lengths), (*ranges, ranges[-1]), strict=True):
        if (spec.minimum, spec.maximum) != allowed:
            raise FormatError(
                f"input {spec.name!r} of an encoder-decoder must lie in {allowed[0]}..{allowed[1]}, "
                f"found {spec.minimum}..{spec.maximum}"
            )
    for token in (source.start_id, source.forced_first, source.forced_last):
        if token is not None and not 0 <= token < vocabulary:
            raise FormatError(f"start and forced ids must lie in 0..{vocabulary - 1}, found {token}")


def _check_interface(what: str, specs: tuple[TensorSpec, ...], wanted: dict[str, tuple[int | str, ...]]) -> None:
    interface = [(spec.name, spec.dtype, spec.shape) for spec in specs]
    if interface != [(name, "int64", shape) for name, shape in wanted.items()]:
        raise FormatError(f"the inputs of {what} are {', '.join(wanted)}, found {interface}")
