"""Writes a bundle: ONNX folder in, one folder out that runs on the target's boards.

The code file holds kernels only; the weights lie in ``weights.bin`` in the order in which the functions take them, each
at a multiple of 64 bytes, and are mapped, never copied.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgeq
from edgeq.errors import EdgeqError, FormatError
from edgeq.files import Output, check_new_folder, new_folder
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import WEIGHT_ALIGNMENT, aligned
from edgeq.formats.tokenizer_files import TOKENIZER_FILE
from edgeq.progress import Progress, silent
from edgeq.targets.builtin.target import Target, check_takes_bundles, load_target
from edgeq.targets.bundle.content import Content, check_exported, describe, read_exported
from edgeq.targets.bundle.model_info import COPIED_FILES, TOKEN_TASKS
from edgeq.targets.bundle.remarks import bundle_remarks
from edgeq.targets.bundle.tokenizer.marian import MARIAN_FILES, MARIAN_VOCABULARY
from edgeq.targets.bundle.tokenizer.table import write_tokenizer
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.names import (
    CODE_FOLDER,
    FORMAT_NAME,
    GOLDEN_FILE,
    LIBRARY_FILE,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    RUNNER_FILE,
    SIGNATURE_FILE,
    TOKENIZER_TABLE_FILE,
    WEIGHTS_FILE,
)
from edgeq.targets.runtime.schema import (
    ITEM_BYTES,
    FileRecord,
    Manifest,
    PlacedTensor,
    PlacedWeight,
    StoredRun,
    TargetInfo,
)
from edgeq.targets.toolchain import libedgeq
from edgeq.targets.toolchain.linkers import Linker, find_linker

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import CompiledModel
    from edgeq.targets.compiler.importer import WeightTensor

_WRITTEN_AT_ONCE = 32 << 20
"""Bytes. Linux keeps what was written at once in large pages, whose mapping takes a tenth of the time at a start."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Where tensors lie in the files that :func:`write_data` wrote."""

    weights: tuple[PlacedWeight, ...]
    golden: tuple[StoredRun, ...]


def compile_bundle(
    onnx_folder: Path | str,
    out: Path | str,
    *,
    target: Target | Path | str,
    context: int | None = None,
    force: bool = False,
    progress: Progress = silent,
    host_bundle: Path | None = None,
    remark: Callable[[str], None] | None = None,
) -> Path:
    """Compiles an exported model into a bundle for one target.

    The golden output for another machine is computed here: the self-test there shows that both give the same bits.

    Args:
        onnx_folder: Folder that ``edgeq export`` wrote.
        out: Folder to write; it appears only when it is complete, and replaces an earlier bundle.
        target: Processor to compile for, or its name, or a target file.
        context: For models that generate text: most tokens of a sequence, prompt included; the caches have that size.
            None takes as many as the model has positions.
        force: Replace ``out`` whatever it holds.
        progress: Told after each step.
        host_bundle: Bundle of the same model for this machine, which saves compiling it again.
        remark: Told what the bundle cannot do.

    Returns:
        ``out``.

    Raises:
        UsageError: If the folder holds no exported model, the model has no such context, or ``out`` holds something
            else than a bundle.
        FormatError: If a file in it is damaged.
        UnsupportedError: If the model needs an operator that has no kernel.
        EdgeqError: If the target's compiler is missing.
    """
    source, out = Path(onnx_folder), Path(out)
    check_exported(source)
    target = target if isinstance(target, Target) else load_target(target)
    check_takes_bundles(target)
    # Everything cheap that can fail comes before minutes of compiling.
    sources = [source, *([host_bundle] if host_bundle is not None else [])]
    check_new_folder(out, OUTPUT, force=force, sources=sources)
    exported, linker = read_exported(source, context=context), find_linker(target)
    from edgeq.targets.compiler.compile import compile_folder

    steps = len(target.kinds) + 2
    models = []
    for step, kind in enumerate(target.kinds):
        progress(f"compiling for {kind.name}", step, steps)
        models.append(compile_folder(source, target=kind))
    progress("computing the golden output", steps - 2, steps)
    content = describe(exported, models, target=target, host_bundle=host_bundle)
    progress("writing the bundle", steps - 1, steps)
    write_bundle(models, out, target=target, linker=linker, content=content, force=force)
    if remark is not None:
        for line in bundle_remarks(out):
            remark(line)
    progress("writing the bundle", steps, steps)
    return out


def contents_of(folder: Path) -> set[str] | None:
    """Files of a bundle, which its manifest lists; None if the folder is no bundle."""
    path = folder / MANIFEST_FILE
    manifest = read_json_object(path) if path.is_file() else {}
    if manifest.get("format") != FORMAT_NAME or not isinstance(manifest.get("files"), dict):
        return None
    return {MANIFEST_FILE, MANIFEST_DIGEST_FILE, SIGNATURE_FILE, *manifest["files"]}


OUTPUT = Output("compile", contents_of)


def write_bundle(
    models: Sequence[CompiledModel], out: Path, *, target: Target, linker: Linker, content: Content, force: bool = False
) -> None:
    """Links a compiled model and writes its bundle.

    Args:
        models: The model for each of ``target.kinds``: kernels, plans, interface and weights.
        out: Folder to write; it appears only when it is complete, and replaces an earlier bundle.
        target: What they were compiled for.
        linker: C compiler for ``target``.
        content: Everything else.
        force: Replace ``out`` whatever it holds.

    Raises:
        EdgeqError: If the linker fails, or the kinds would need weights of their own.
    """
    from edgeq.targets.compiler.linking import link_code

    check_weights(models, target)
    infos = [target_info(kind) for kind in target.kinds]
    with new_folder(out, OUTPUT, force=force) as folder:
        (folder / CODE_FOLDER).mkdir()
        for info, compiled in zip(infos, models, strict=True):
            link_code(compiled, folder / info.code, linker)
        data = write_data(folder, models[0].weights, content)
        (folder / LIBRARY_FILE).parent.mkdir()
        libedgeq.build_library(linker, folder / LIBRARY_FILE)
        libedgeq.build_runner(linker, folder / RUNNER_FILE, target=target)
        tools = {"linker": linker.version, "glibc": oldest_glibc(folder)}
        manifest = manifest_of(folder, models, target=target, content=content, data=data, tools=tools)
        write_manifest(folder, manifest)
        read_manifest(folder)  # what no runtime would accept must never leave this function


def write_data(folder: Path, weights: Sequence[WeightTensor], content: Content) -> Data:
    """Writes everything of a bundle that is not code: weights, golden runs, tokenizer, configuration."""
    data = Data(
        tuple(_write_weights(folder / WEIGHTS_FILE, weights)), tuple(_write_golden(folder / GOLDEN_FILE, content))
    )
    if content.files is not None:
        for name in COPIED_FILES:
            if (content.files / name).is_file():
                shutil.copyfile(content.files / name, folder / name)
    task = content.model.task
    needs = {"names": task in TOKEN_TASKS, "lower_case": task == "answer"}
    if (folder / TOKENIZER_FILE).is_file():
        write_tokenizer(folder / TOKENIZER_FILE, folder / TOKENIZER_TABLE_FILE, **needs)
    elif content.files is not None and all((content.files / name).is_file() for name in MARIAN_FILES):
        write_tokenizer(content.files / MARIAN_VOCABULARY, folder / TOKENIZER_TABLE_FILE, **needs)
    return data


def manifest_of(
    folder: Path,
    models: Sequence[CompiledModel],
    *,
    target: Target,
    content: Content,
    data: Data,
    tools: Mapping[str, str],
    linked_kernels: str | None = None,
) -> Manifest:
    """Describes a bundle whose files are written; see :class:`Manifest`."""
    infos = [target_info(kind) for kind in target.kinds]
    return Manifest(
        name=target.name,
        targets=tuple(infos),
        model=content.model,
        functions={
            name: dataclasses.replace(function, plans=_plans(name, infos, models))
            for name, function in content.functions.items()
        },
        weights=data.weights,
        golden=data.golden,
        files=_file_records(folder),
        tools={"edgeq": edgeq.__version__, "apache-tvm": importlib.metadata.version("apache-tvm"), **tools},
        recipe=content.recipe,
        generation=content.generation,
        text=content.text,
        linked_kernels=linked_kernels,
    )


def oldest_glibc(folder: Path) -> str:
    """Returns the oldest C library, such as ``2.34``, that has what the folder's programs and libraries use.

    Debian's cross compiler links against its own, new C library; zig against the one that the TVM runtime
    needs anyway.
    """
    versions = {(2, 0)}
    for path in folder.rglob("*"):
        if path.suffix == ".so" or path.name == RUNNER_FILE:
            found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\0])", path.read_bytes())
            versions |= {(int(major), int(minor)) for major, minor in found}
    return ".".join(map(str, max(versions)))


def _plans(function: str, infos: Sequence[TargetInfo], models: Sequence[CompiledModel]) -> dict[str, Any]:
    """Plans of a function, by code file."""
    return {info.code: compiled.plans[function].to_table() for info, compiled in zip(infos, models, strict=True)}


def check_weights(models: Sequence[CompiledModel], target: Target) -> None:
    """One ``weights.bin`` serves all kinds of processors.

    Raises:
        EdgeqError: If it does not.
    """
    for kind, compiled in zip(target.kinds, models, strict=True):
        for weight, first in zip(compiled.weights, models[0].weights, strict=True):
            if weight.name != first.name or not np.array_equal(weight.array, first.array):
                raise EdgeqError(
                    f"{kind.name} needs tensor {weight.name!r} in another form than {target.kinds[0].name}; compile a "
                    "bundle for each"
                )


def target_info(target: Target) -> TargetInfo:
    """Returns what a manifest says of the processors of one code file."""
    return TargetInfo(target.name, target.triple, target.cpu, target.features, target.isa, cpu_flags=target.cpu_flags)


def _write_weights(path: Path, weights: Sequence[WeightTensor]) -> list[PlacedWeight]:
    stored = _write_tensors(path, [(weight.name, weight.array) for weight in weights])
    return [
        PlacedWeight(**dataclasses.asdict(place), kind=weight.kind, bits=weight.bits, zero_point=weight.zero_point)
        for place, weight in zip(stored, weights, strict=True)
    ]


def _write_tensors(path: Path, tensors: Sequence[tuple[str, np.ndarray]]) -> list[PlacedTensor]:
    """Writes arrays one after the other, each at a multiple of 64 bytes."""
    stored = []
    with path.open("wb", buffering=_WRITTEN_AT_ONCE) as stream:
        for name, array in tensors:
            dtype = array.dtype.name
            if dtype not in ITEM_BYTES or array.size == 0:
                raise FormatError(f"tensor {name!r} is {dtype} of shape {array.shape}, which no bundle can hold")
            offset = aligned(stream.tell(), WEIGHT_ALIGNMENT)
            stream.write(bytes(offset - stream.tell()))
            stream.write(np.ascontiguousarray(array).data)
            stored.append(PlacedTensor(name, dtype, array.shape, offset, array.nbytes))
    return stored


def _write_golden(path: Path, content: Content) -> list[StoredRun]:
    """Writes the golden runs, and returns where they lie."""
    tensors = []
    for run in content.golden:
        function = content.functions[run.function]
        tensors += [(spec.name, run.inputs[spec.name]) for spec in function.inputs]
        tensors += [(spec.name, run.outputs[spec.name]) for spec in function.outputs]
    stored = iter(_write_tensors(path, tensors))
    runs = []
    for run in content.golden:
        function = content.functions[run.function]
        inputs = tuple(next(stored) for _ in function.inputs)
        runs.append(StoredRun(run.function, inputs, tuple(next(stored) for _ in function.outputs)))
    return runs


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_record(path) for path in files}
