"""Turns the parsed JSON of a manifest into checked dataclasses.

Every number is checked against the sizes that the manifest itself claims; ``manifest.py`` checks those
against the files.
"""

from __future__ import annotations

import math
import re
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats import FORMAT_VERSION, WEIGHT_ALIGNMENT
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.schema import (
    DECODER_INPUTS,
    FORMAT_NAME,
    GOLDEN_FILE,
    ITEM_BYTES,
    MODEL_FILE,
    POOLINGS,
    SOURCE_INPUTS,
    SOURCE_STATE,
    TARGET_INPUTS,
    TASKS,
    WEIGHTS_FILE,
    FileRecord,
    GenerationInfo,
    Manifest,
    ModelInfo,
    SourceInfo,
    StoredRun,
    StoredTensor,
    TargetInfo,
    TensorSpec,
)

_MAX_DIMENSIONS = 8
_MAX_TENSOR_BYTES = 1 << 46
_STATE_SIZES = {"batch", "context", "context_blocks"}
_SOURCE_SIZES = {"batch", "source_context", "source_context_blocks"}
_STATE_TYPES = ("float16", "float32")
_FILE_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._+-]*/)*[A-Za-z0-9_][A-Za-z0-9._+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def parse_manifest(table: Any) -> Manifest:
    """Turns parsed JSON into a :class:`Manifest`.

    Raises:
        FormatError: If a key is missing, of the wrong type, or inconsistent with the others.
    """
    root = JsonTable(table, "manifest")
    if root.text("format") != FORMAT_NAME:
        raise FormatError(f"'format' must be {FORMAT_NAME!r}, found {root.text('format')!r}")
    if root.integer("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"format_version is {root.integer('format_version')}, this edgeq reads version {FORMAT_VERSION}"
        )
    golden = root.table("golden")
    recipe = root.value("recipe")
    if recipe is not None and not isinstance(recipe, dict):
        raise FormatError("'recipe' must be a table or null")
    tools = root.table("tools")
    manifest = Manifest(
        target=_parse_target(root.table("target")),
        model=_parse_model(root.table("model")),
        inputs=tuple(_parse_spec(item) for item in root.tables("inputs")),
        outputs=tuple(_parse_spec(item) for item in root.tables("outputs")),
        weights=tuple(_parse_stored(item) for item in root.tables("weights")),
        golden_inputs=tuple(_parse_stored(item) for item in golden.tables("inputs")),
        golden_outputs=tuple(_parse_stored(item) for item in golden.tables("outputs")),
        files=_parse_files(root.table("files")),
        tools={key: tools.text(key) for key in tools.items},
        recipe=recipe,
        generation=_parse_generation(root.table("generation")) if "generation" in root.items else None,
        golden_steps=tuple(_parse_run(item) for item in golden.tables("steps")) if "steps" in golden.items else (),
        golden_source=_parse_run(golden.table("source")) if "source" in golden.items else None,
    )
    _check_consistency(manifest)
    _check_generation(manifest)
    return manifest


def _check_consistency(manifest: Manifest) -> None:
    for required in (MODEL_FILE, WEIGHTS_FILE, GOLDEN_FILE):
        if required not in manifest.files:
            raise FormatError(f"'files' does not list {required}")
    if not manifest.inputs or not manifest.outputs:
        raise FormatError("a model needs at least one input and one output")
    _check_places(manifest.weights, WEIGHTS_FILE, manifest)
    for run in (StoredRun(manifest.golden_inputs, manifest.golden_outputs), *manifest.golden_steps):
        _check_run(run, manifest.inputs, manifest.outputs, manifest)
    source = manifest.generation.source if manifest.generation is not None else None
    if (source is None) != (manifest.golden_source is None):
        raise FormatError("'generation' and 'golden' must both have a source, or neither")
    if source is not None and manifest.golden_source is not None:
        _check_run(manifest.golden_source, source.inputs, source.outputs, manifest)


def _check_run(
    run: StoredRun, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], manifest: Manifest
) -> None:
    for specs, tensors in ((inputs, run.inputs), (outputs, run.outputs)):
        _check_places(tensors, GOLDEN_FILE, manifest)
        if [spec.name for spec in specs] != [tensor.name for tensor in tensors]:
            raise FormatError("'golden' does not hold the model's inputs and outputs, in their order")
        for spec, tensor in zip(specs, tensors, strict=True):
            if spec.dtype != tensor.dtype or not _fits(spec.shape, tensor.shape):
                raise FormatError(f"golden tensor {tensor.name!r} has another type or shape than the model's")


def _check_places(tensors: tuple[StoredTensor, ...], file: str, manifest: Manifest) -> None:
    size = manifest.files[file].bytes
    for tensor in tensors:
        if tensor.offset + tensor.bytes > size:
            raise FormatError(
                f"tensor {tensor.name!r} ends at byte {tensor.offset + tensor.bytes} of {file}, which has {size}"
            )


def _check_generation(manifest: Manifest) -> None:
    """A decoder has exactly the interface that the runtimes drive, and caches of bounded size."""
    generation = manifest.generation
    if (generation is not None) != (manifest.model.task in ("generate", "seq2seq")):
        raise FormatError(f"a model for {manifest.model.task!r} and 'generation' do not belong together")
    if generation is None:
        if manifest.golden_steps:
            raise FormatError("golden steps belong to models that generate")
        return
    if (generation.source is not None) != (manifest.model.task == "seq2seq"):
        raise FormatError(f"a model for {manifest.model.task!r} and the source of 'generation' do not belong together")
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
    for spec in generation.state:
        size = math.prod(generation.state_shape(spec, 1)) * ITEM_BYTES[spec.dtype]
        if size > _MAX_TENSOR_BYTES:
            raise FormatError(f"cache {spec.name!r} takes {size} bytes a sequence, which no machine has")
    if generation.source is not None:
        _check_source(generation.source, manifest.inputs[-1], vocabulary)


def _check_source(source: SourceInfo, lengths: TensorSpec, vocabulary: int) -> None:
    """``encode`` has exactly the interface that the runtimes drive, and no value leads outside its caches."""
    _check_interface("an encoder", source.inputs, SOURCE_INPUTS)
    ranges = [(0, vocabulary - 1), (0, 1), (1, source.context)]
    for spec, allowed in zip((*source.inputs, lengths), (*ranges, ranges[-1]), strict=True):
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


def _fits(pattern: tuple[int | str, ...], shape: tuple[int, ...]) -> bool:
    return len(pattern) == len(shape) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(pattern, shape, strict=True)
    )


def _parse_target(table: JsonTable) -> TargetInfo:
    return TargetInfo(
        name=table.text("name"),
        triple=table.text("triple"),
        cpu=table.text("cpu"),
        features=table.texts("features"),
        isa=table.text("isa"),
        cpu_flags=table.texts("cpu_flags"),
    )


def _parse_model(table: JsonTable) -> ModelInfo:
    max_length = None if table.value("max_length") is None else table.integer("max_length", at_least=1)
    model = ModelInfo(
        architecture=table.text("architecture"),
        task=table.text("task"),
        pooling=table.text("pooling"),
        normalize=table.boolean("normalize"),
        labels=table.texts("labels"),
        max_length=max_length,
    )
    if model.task not in TASKS or model.pooling not in POOLINGS:
        raise FormatError(f"task {model.task!r} with pooling {model.pooling!r} is not known to this edgeq")
    return model


def _parse_spec(table: JsonTable) -> TensorSpec:
    shape = table.sequence("shape")
    if len(shape) > _MAX_DIMENSIONS:
        raise FormatError(f"{table.where} has {len(shape)} dimensions, at most {_MAX_DIMENSIONS} are allowed")
    for size in shape:
        named = isinstance(size, str) and size
        if not named and not (type(size) is int and 1 <= size < 1 << 40):
            raise FormatError(f"{table.where}: a size must be a name or a positive integer, found {size!r}")
    return TensorSpec(
        name=table.text("name"),
        dtype=_parse_dtype(table),
        shape=tuple(shape),
        minimum=_parse_optional(table, "minimum"),
        maximum=_parse_optional(table, "maximum"),
        default=_parse_optional(table, "default"),
    )


def _parse_generation(table: JsonTable) -> GenerationInfo:
    context = table.integer("context", at_least=1)
    end_ids = tuple(table.sequence("end_ids"))
    if not all(type(token) is int for token in end_ids):
        raise FormatError(f"{table.where}: 'end_ids' must be integers, found {list(end_ids)}")
    state = tuple(_parse_spec(item) for item in table.tables("state"))
    source = _parse_source(table.table("source")) if "source" in table.items else None
    for spec in state:
        names = {size for size in spec.shape if isinstance(size, str)}
        of_source = source is not None and spec.name.startswith(SOURCE_STATE)
        sizes = _SOURCE_SIZES if of_source else _STATE_SIZES
        if spec.shape[:1] != ("batch",) or not names <= sizes or spec.dtype not in _STATE_TYPES:
            raise FormatError(f"cache {spec.name!r} must be floats [batch, ...], found {spec.dtype} {list(spec.shape)}")
    if not state:
        raise FormatError(f"{table.where}: 'state' is empty")
    return GenerationInfo(context, end_ids, state, source)


def _parse_source(table: JsonTable) -> SourceInfo:
    source = SourceInfo(
        context=table.integer("context", at_least=1),
        start_id=table.integer("start_id"),
        forced_first=None if table.value("forced_first") is None else table.integer("forced_first"),
        forced_last=None if table.value("forced_last") is None else table.integer("forced_last"),
        inputs=tuple(_parse_spec(item) for item in table.tables("inputs")),
        outputs=tuple(_parse_spec(item) for item in table.tables("outputs")),
    )
    if not source.outputs:
        raise FormatError(f"{table.where}: 'outputs' is empty")
    return source


def _parse_run(table: JsonTable) -> StoredRun:
    return StoredRun(
        tuple(_parse_stored(item) for item in table.tables("inputs")),
        tuple(_parse_stored(item) for item in table.tables("outputs")),
    )


def _parse_optional(table: JsonTable, key: str) -> int | None:
    return table.integer(key, at_least=-(1 << 62)) if key in table.items else None


def _parse_stored(table: JsonTable) -> StoredTensor:
    spec = _parse_spec(table)
    shape = tuple(size for size in spec.shape if isinstance(size, int))
    if len(shape) != len(spec.shape):
        raise FormatError(f"{table.where}: a stored tensor has no named sizes, found {spec.shape}")
    tensor = StoredTensor(spec.name, spec.dtype, shape, table.integer("offset"), table.integer("bytes"))
    expected = math.prod(shape) * ITEM_BYTES[tensor.dtype]
    if tensor.bytes != expected or expected > _MAX_TENSOR_BYTES:
        raise FormatError(
            f"{table.where}: {tensor.dtype} of shape {shape} takes {expected} bytes, found {tensor.bytes}"
        )
    if tensor.offset % WEIGHT_ALIGNMENT:
        raise FormatError(f"{table.where}: offset {tensor.offset} is not a multiple of {WEIGHT_ALIGNMENT}")
    return tensor


def _parse_dtype(table: JsonTable) -> str:
    dtype = table.text("dtype")
    if dtype not in ITEM_BYTES:
        raise FormatError(f"{table.where}: dtype must be one of {', '.join(ITEM_BYTES)}, found {dtype!r}")
    return dtype


def _parse_files(table: JsonTable) -> dict[str, FileRecord]:
    files: dict[str, FileRecord] = {}
    for name in table.items:
        if not _FILE_NAME.fullmatch(name):
            raise FormatError(f"'files' names {name!r}, which is not a plain path inside the bundle")
        record = table.table(name)
        digest = record.text("sha256")
        if not _DIGEST.fullmatch(digest):
            raise FormatError(f"{record.where}: sha256 must be 64 hexadecimal digits, found {digest!r}")
        files[name] = FileRecord(digest, record.integer("bytes"))
    return files
