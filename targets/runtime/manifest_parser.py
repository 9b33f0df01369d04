"""Turns the parsed JSON of a manifest into checked dataclasses.

Every number is checked against the sizes that the manifest itself claims; ``manifest.py`` checks those
against the files.
"""

from __future__ import annotations

import re
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats.low_bit import FORMAT_VERSION
from edgeq.targets.runtime.generation_parser import check_generation, parse_generation
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.schema import (
    DIGEST_BLOCK,
    FORMAT_NAME,
    GOLDEN_FILE,
    MODEL_FILE,
    POOLINGS,
    TASKS,
    WEIGHTS_FILE,
    FileRecord,
    Manifest,
    ModelInfo,
    StoredRun,
    StoredTensor,
    TargetInfo,
    TensorSpec,
)
from edgeq.targets.runtime.tensor_parser import parse_spec, parse_stored

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
        inputs=tuple(parse_spec(item) for item in root.tables("inputs")),
        outputs=tuple(parse_spec(item) for item in root.tables("outputs")),
        weights=tuple(parse_stored(item) for item in root.tables("weights")),
        golden_inputs=tuple(parse_stored(item) for item in golden.tables("inputs")),
        golden_outputs=tuple(parse_stored(item) for item in golden.tables("outputs")),
        files=_parse_files(root.table("files")),
        tools={key: tools.text(key) for key in tools.items},
        recipe=recipe,
        generation=parse_generation(root.table("generation")) if "generation" in root.items else None,
        golden_steps=tuple(_parse_run(item) for item in golden.tables("steps")) if "steps" in golden.items else (),
        golden_source=_parse_run(golden.table("source")) if "source" in golden.items else None,
    )
    _check_consistency(manifest)
    check_generation(manifest)
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


def _parse_run(table: JsonTable) -> StoredRun:
    return StoredRun(
        tuple(parse_stored(item) for item in table.tables("inputs")),
        tuple(parse_stored(item) for item in table.tables("outputs")),
    )


def _parse_files(table: JsonTable) -> dict[str, FileRecord]:
    files: dict[str, FileRecord] = {}
    for name in table.items:
        if not _FILE_NAME.fullmatch(name):
            raise FormatError(f"'files' names {name!r}, which is not a plain path inside the bundle")
        files[name] = _parse_file(table.table(name))
    return files


def _parse_file(table: JsonTable) -> FileRecord:
    record = FileRecord(table.text("sha256"), table.integer("bytes"), table.texts("blocks"))
    for digest in (record.sha256, *record.blocks):
        if not _DIGEST.fullmatch(digest):
            raise FormatError(f"{table.where}: a SHA-256 must be 64 hexadecimal digits, found {digest!r}")
    wanted = -(-record.bytes // DIGEST_BLOCK)
    if len(record.blocks) != wanted:
        raise FormatError(f"{table.where}: {record.bytes} bytes need {wanted} blocks, found {len(record.blocks)}")
    return record
