"""Turns the parsed JSON of a manifest into checked dataclasses.

Every number is checked against the sizes that the manifest itself claims; ``manifest.py`` checks those
against the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats.tasks import TASKS
from edgeq.targets.runtime.generation_parser import check_generation, parse_generation
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.manifest_file import parse_manifest_file, root_of
from edgeq.targets.runtime.names import ENCODE, GOLDEN_FILE, MAIN, MANIFEST_FILE, WEIGHTS_FILE
from edgeq.targets.runtime.schema import (
    DIGEST_BLOCK,
    POOLINGS,
    FileRecord,
    FunctionInfo,
    Manifest,
    ModelInfo,
    PlacedTensor,
    StoredRun,
    TargetInfo,
    TensorSpec,
)
from edgeq.targets.runtime.tensor_parser import parse_spec, parse_stored, parse_weight
from edgeq.targets.runtime.text_info import PLAIN_TEXT, parse_text_info

_FILE_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._+-]*/)*[A-Za-z0-9_][A-Za-z0-9._+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def manifest_of(data: bytes, bundle: Path) -> Manifest:
    """Parses the manifest of a bundle, whatever files there are.

    Raises:
        FormatError: If it is damaged, or of another version.
    """
    path = bundle / MANIFEST_FILE
    table = parse_manifest_file(data, path)
    try:
        return parse_manifest(table)
    except FormatError as error:
        raise FormatError(f"{path}: {error}; compile the bundle again") from error


def parse_manifest(table: Any) -> Manifest:
    """Turns parsed JSON into a :class:`Manifest`.

    Raises:
        FormatError: If a key is missing, of the wrong type, or inconsistent with the others.
    """
    root = root_of(table)
    recipe = root.value("recipe")
    if recipe is not None and not isinstance(recipe, dict):
        raise FormatError("'recipe' must be a table or null")
    tools, functions = root.table("tools"), root.table("functions")
    targets = tuple(_parse_target(item) for item in root.tables("targets"))
    codes = [target.code for target in targets]
    manifest = Manifest(
        name=root.text("target"),
        targets=targets,
        model=_parse_model(root.table("model")),
        functions={name: _parse_function(functions.table(name), codes) for name in functions.items},
        weights=tuple(parse_weight(item) for item in root.tables("weights")),
        golden=tuple(_parse_run(item) for item in root.tables("golden")),
        files=_parse_files(root.table("files")),
        tools={key: tools.text(key) for key in tools.items},
        recipe=recipe,
        generation=None if root.value("generation") is None else parse_generation(root.table("generation")),
        # Bundles that were made before there were such rules have none.
        text=parse_text_info(root.table("text")) if "text" in root.items else PLAIN_TEXT,
        linked_kernels=root.text("linked_kernels") if "linked_kernels" in root.items else None,
    )
    _check_consistency(manifest)
    check_generation(manifest)
    return manifest


def _check_consistency(manifest: Manifest) -> None:
    if not manifest.targets:
        raise FormatError("'targets' is empty")
    if len({target.architecture for target in manifest.targets}) > 1:
        raise FormatError("'targets' are of several architectures")
    codes = [] if manifest.linked_kernels is not None else [target.code for target in manifest.targets]
    needed = [WEIGHTS_FILE, *([GOLDEN_FILE] if manifest.golden else []), *codes]
    for required in needed:
        if required not in manifest.files:
            raise FormatError(f"'files' does not list {required}")
    if MAIN not in manifest.functions or not manifest.functions.keys() <= {MAIN, ENCODE}:
        raise FormatError(f"'functions' must be {MAIN!r}, and {ENCODE!r} for some, found {list(manifest.functions)}")
    for function in manifest.functions.values():
        if not function.inputs or not function.outputs:
            raise FormatError("a function needs at least one input and one output")
    _check_places(manifest.weights, WEIGHTS_FILE, manifest)
    for run in manifest.golden:
        if run.function not in manifest.functions:
            raise FormatError(f"'golden' is of {run.function!r}, which is no function of the model")
        function = manifest.functions[run.function]
        _check_run(run, function.inputs, function.outputs, manifest)


def _check_run(
    run: StoredRun, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], manifest: Manifest
) -> None:
    for specs, tensors in ((inputs, run.inputs), (outputs, run.outputs)):
        _check_places(tensors, GOLDEN_FILE, manifest)
        if [spec.name for spec in specs] != [tensor.name for tensor in tensors]:
            raise FormatError("'golden' does not hold the function's inputs and outputs, in their order")
        for spec, tensor in zip(specs, tensors, strict=True):
            if spec.dtype != tensor.dtype or not _fits(spec.shape, tensor.shape):
                raise FormatError(f"golden tensor {tensor.name!r} has another type or shape than the function's")


def _check_places(tensors: Sequence[PlacedTensor], file: str, manifest: Manifest) -> None:
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
    target = TargetInfo(
        name=table.text("name"),
        triple=table.text("triple"),
        cpu=table.text("cpu"),
        features=table.texts("features"),
        isa=table.text("isa"),
        cpu_flags=table.texts("cpu_flags"),
    )
    if table.text("code") != target.code:
        raise FormatError(f"{table.where}: 'code' must be {target.code!r}, found {table.text('code')!r}")
    return target


def _parse_function(table: JsonTable, codes: list[str]) -> FunctionInfo:
    if "plans" in table.items:
        of_code = table.table("plans")
        plans = {code: of_code.table(code).items for code in codes}
    else:
        plans = dict.fromkeys(codes, table.table("plan").items)
    return FunctionInfo(
        inputs=tuple(parse_spec(item) for item in table.tables("inputs")),
        outputs=tuple(parse_spec(item) for item in table.tables("outputs")),
        state=tuple(parse_spec(item) for item in table.tables("state")),
        plans=plans,
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
        table.text("function"),
        tuple(parse_stored(item) for item in table.tables("inputs")),
        tuple(parse_stored(item) for item in table.tables("outputs")),
    )


def _parse_files(table: JsonTable) -> dict[str, FileRecord]:
    files: dict[str, FileRecord] = {}
    for name in table.items:
        if not is_plain_path(name):
            raise FormatError(f"'files' names {name!r}, which is not a plain path inside the bundle")
        files[name] = _parse_file(table.table(name))
    return files


def is_plain_path(name: str) -> bool:
    """Tells whether a name is a path that cannot lead out of a folder, of characters that every system takes."""
    return _FILE_NAME.fullmatch(name) is not None


def _parse_file(table: JsonTable) -> FileRecord:
    crc32 = table.text("crc32") if "crc32" in table.items else None
    record = FileRecord(table.text("sha256"), table.integer("bytes"), table.texts("blocks"), crc32)
    for digest in (record.sha256, *record.blocks):
        if not _DIGEST.fullmatch(digest):
            raise FormatError(f"{table.where}: a SHA-256 must be 64 hexadecimal digits, found {digest!r}")
    wanted = -(-record.bytes // DIGEST_BLOCK)
    if len(record.blocks) != wanted:
        raise FormatError(f"{table.where}: {record.bytes} bytes need {wanted} blocks, found {len(record.blocks)}")
    if crc32 is not None and not re.fullmatch(f"(?:[0-9a-f]{{8}}){{{wanted}}}", crc32):
        raise FormatError(f"{table.where}: {record.bytes} bytes need {wanted} CRC-32 of eight hexadecimal digits each")
    return record
