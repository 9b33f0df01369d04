"""Writes a bundle: ONNX folder in, one folder out that runs on the target's board.

``model.so`` holds code only; the weights lie in ``weights.bin`` in the order in which ``main`` takes them,
each at a multiple of 64 bytes, and are mapped, never copied.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.files import Output, check_new_folder, new_folder
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import WEIGHT_ALIGNMENT, aligned
from edgeq.progress import Progress, silent
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.bundle.generation_config import read_generation_settings
from edgeq.targets.bundle.golden import BATCH, GoldenRun, Run, golden_runs, golden_source
from edgeq.targets.bundle.interface import input_specs, plain_specs
from edgeq.targets.bundle.model_info import (
    COPIED_FILES,
    WRITING_TASKS,
    read_config,
    read_end_ids,
    read_model_info,
    read_target_tokens,
    recipe_of,
    source_context,
)
from edgeq.targets.bundle.tokenizer.table import write_tokenizer
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.library import open_library
from edgeq.targets.runtime.loader import Bundle, load
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.schema import (
    FORMAT_NAME,
    GOLDEN_FILE,
    ITEM_BYTES,
    LIBRARY_FOLDER,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    RUNNER_FILE,
    SIGNATURE_FILE,
    TOKENIZER_TABLE_FILE,
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
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, GenerationSettings
from edgeq.targets.runtime.state import State
from edgeq.targets.runtime.tokenizer import TOKENIZER_FILE
from edgeq.targets.runtime.tvm_import import import_tvm
from edgeq.targets.toolchain.linkers import Linker, build_runner, find_linker, library_linker
from edgeq.targets.toolchain.runtime_wheels import is_available, package_versions, runtime_libraries

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import CompiledModel, TensorInfo

@dataclasses.dataclass(frozen=True)
class Content:
    """What goes into a bundle besides code and weights.

    Attributes:
        model: What the model is for.
        inputs: Its inputs, with the values they may take.
        outputs: Its outputs.
        golden: The runs of the self-test.
        recipe: Name and digest of the compression recipe, or None.
        files: Folder from which tokenizer and configuration are copied, or None.
        generation: Context and caches of a decoder, or None.
        source: The run of an encoder-decoder's ``encode`` before the golden ones, or None.
    """

    model: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: Sequence[GoldenRun]
    recipe: dict[str, Any] | None
    files: Path | None
    generation: GenerationInfo | None = None
    source: GoldenRun | None = None


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """The model on this machine; ``encode`` is None unless it is an encoder-decoder, whose source ``run`` reads."""

    run: Run
    encode: Run | None = None


def compile_bundle(
    onnx_folder: Path | str,
    out: Path | str,
    *,
    target: Target,
    context: int | None = None,
    force: bool = False,
    progress: Progress = silent,
    host_bundle: Path | None = None,
) -> Path:
    """Compiles an exported model into a bundle for one target.

    The golden output of a bundle for another machine is computed on this one: the self-test on the board
    then shows that both compute the same bits.

    Args:
        onnx_folder: Folder that ``edgeq export`` wrote.
        out: Folder to write; it appears only when it is complete, and replaces an earlier bundle.
        target: Processor to compile for.
        context: For models that make text: most tokens of a sequence, prompt included. The caches are made for it.
            None takes as many as the model has positions.
        force: Replace ``out`` whatever it holds.
        progress: Told after each step.
        host_bundle: Bundle of the same model for this machine, which saves compiling it again.

    Returns:
        ``out``.

    Raises:
        UsageError: If the folder holds no exported model, the model has no such context, or ``out`` holds something
            else than a bundle.
        FormatError: If a file in it is damaged.
        UnsupportedError: If the model needs an operator that has no kernel.
        EdgeqError: If the target's compiler or runtime libraries are missing.
    """
    source, out = Path(onnx_folder), Path(out)
    if not any((source / name).is_file() for name in ("model.onnx", "decoder_with_past_model.onnx")):
        raise UsageError(f"{source} has no model.onnx; give a folder that `edgeq export` wrote")
    # Everything cheap that can fail comes before minutes of compiling.
    sources = [source, *([host_bundle] if host_bundle is not None else [])]
    check_new_folder(out, OUTPUT, force=force, sources=sources)
    config, model, linker = read_config(source), read_model_info(source, context=context), find_linker(target)
    end_ids, settings = read_end_ids(source), _generation_settings(source, model)
    if not target.is_host:
        _fetch_runtime(target, progress)
    from edgeq.targets.compiler.compile import compile_folder

    progress(f"compiling for {target.name}", 0, 3)
    compiled = compile_folder(source, target=target)
    reads = _source_info(source, compiled, config, model) if model.task == "seq2seq" else None
    inputs = input_specs(compiled.inputs, config, model=model, source_context=reads.context if reads else None)
    outputs = plain_specs(compiled.outputs)
    generation = None
    if compiled.state:
        generation = GenerationInfo(model.max_length or 0, end_ids, plain_specs(compiled.state), reads, settings)
    progress("computing the golden output", 1, 3)
    local = model_on_this_machine(
        source, compiled, outputs=outputs, generation=generation, target=target, host_bundle=host_bundle
    )
    golden = golden_runs(inputs, model, run=local.run, source=(read := _golden_source(reads, model, local)))
    progress("writing the bundle", 2, 3)
    content = Content(model, inputs, outputs, golden, recipe_of(config), source, generation, read)
    write_bundle(compiled, out, target=target, linker=linker, content=content, force=force)
    progress("writing the bundle", 3, 3)
    return out


def _fetch_runtime(target: Target, progress: Progress) -> None:
    if not is_available(target):
        progress(f"getting TVM's runtime for {target.name}, once", 0, 3)
    runtime_libraries(target)


def _contents(folder: Path) -> set[str] | None:
    """Files of a bundle, which its manifest lists; None if the folder is no bundle."""
    path = folder / MANIFEST_FILE
    manifest = read_json_object(path) if path.is_file() else {}
    if manifest.get("format") != FORMAT_NAME or not isinstance(manifest.get("files"), dict):
        return None
    return {MANIFEST_FILE, MANIFEST_DIGEST_FILE, SIGNATURE_FILE, *manifest["files"]}


OUTPUT = Output("compile", _contents)


def write_bundle(
    compiled: CompiledModel, out: Path, *, target: Target, linker: Linker, content: Content, force: bool = False
) -> None:
    """Links a compiled model and writes its bundle.

    Args:
        compiled: The executable, its interface and its weights.
        out: Folder to write; it appears only when it is complete, and replaces an earlier bundle.
        target: What ``compiled`` was compiled for.
        linker: C compiler for ``target``.
        content: Everything else.
        force: Replace ``out`` whatever it holds.
    """
    with new_folder(out, OUTPUT, force=force) as folder:
        link_model(compiled, folder / MODEL_FILE, linker)
        weights = _write_tensors(folder / WEIGHTS_FILE, compiled.weights)
        golden, golden_read = _write_golden(folder / GOLDEN_FILE, content)
        if content.files is not None:
            for name in COPIED_FILES:
                if (content.files / name).is_file():
                    shutil.copyfile(content.files / name, folder / name)
        if not target.is_host:
            (folder / LIBRARY_FOLDER).mkdir()
            for name, path in runtime_libraries(target).items():
                shutil.copyfile(path, folder / LIBRARY_FOLDER / name)
            build_runner(linker, folder / RUNNER_FILE)
            if (folder / TOKENIZER_FILE).is_file():
                write_tokenizer(folder / TOKENIZER_FILE, folder / TOKENIZER_TABLE_FILE)
        manifest = Manifest(
            target=_target_info(target),
            model=content.model,
            inputs=content.inputs,
            outputs=content.outputs,
            weights=tuple(weights),
            golden_inputs=golden[0].inputs,
            golden_outputs=golden[0].outputs,
            files=_file_records(folder),
            tools={
                "edgeq": edgeq.__version__,
                "linker": linker.version,
                "glibc": oldest_glibc(folder),
                **package_versions(),
            },
            recipe=content.recipe,
            generation=content.generation,
            golden_steps=tuple(golden[1:]),
            golden_source=golden_read,
        )
        write_manifest(folder, manifest)
        read_manifest(folder)  # what no runtime would accept must never leave this function


def link_model(compiled: CompiledModel, out: Path, linker: Linker) -> None:
    """Links the compiled code into a shared library.

    Raises:
        EdgeqError: If the linker fails.
    """
    compiled.executable.export_library(str(out), fcompile=library_linker(linker))
    out.chmod(0o644)


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


def model_on_this_machine(
    source: Path,
    compiled: CompiledModel,
    *,
    outputs: Sequence[TensorSpec],
    generation: GenerationInfo | None,
    target: Target,
    host_bundle: Path | None,
) -> LocalModel:
    """Returns the model as functions that run here.

    Args:
        source: ONNX folder, compiled again for this machine if need be.
        compiled: The model, compiled for ``target``.
        outputs: The model's outputs.
        generation: Context and caches of a decoder, or None.
        target: A host target runs ``compiled`` itself.
        host_bundle: Bundle of the same model for this machine, or None.

    Raises:
        UsageError: If ``host_bundle`` holds another model.
    """
    if host_bundle is not None:
        bundle = load(host_bundle)
        if not _holds_weights(bundle, compiled.weights) or bundle.manifest.generation != generation:
            raise UsageError(f"{host_bundle} holds another model than {source}; leave it out")
        if generation is None:
            return LocalModel(bundle.run)
        host_state = bundle.new_state(BATCH)
        reads = functools.partial(bundle.encode_source, state=host_state) if generation.source is not None else None
        return LocalModel(functools.partial(bundle.run, state=host_state), reads)
    if not target.is_host:
        from edgeq.targets.compiler.compile import compile_folder

        compiled = compile_folder(source, target=load_target("host"))
    kept = None if generation is None else State(generation, BATCH)
    tensor = import_tvm().runtime.tensor
    weights = [tensor(array) for _, array in compiled.weights]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / MODEL_FILE
        link_model(compiled, library, find_linker(load_target("host")))
        main = open_library(library, [*(kept.tensors if kept is not None else []), *weights])
        run = _by_name(main, compiled.inputs, outputs)
        if generation is None or generation.source is None or kept is None:
            return LocalModel(run)
        encode = open_library(library, [*kept.source_tensors, *weights], function="encode")
        return LocalModel(run, _by_name(encode, generation.source.inputs, generation.source.outputs))


def _generation_settings(folder: Path, model: ModelInfo) -> GenerationSettings:
    if model.task not in WRITING_TASKS:
        return PLAIN_SETTINGS
    return read_generation_settings(folder, with_source=model.task == "seq2seq")


def _golden_source(reads: SourceInfo | None, model: ModelInfo, local: LocalModel) -> GoldenRun | None:
    if reads is None or local.encode is None:
        return None
    return golden_source(reads.inputs, model, context=reads.context, encode=local.encode)


def _by_name(
    function: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    inputs: Sequence[TensorInfo] | Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Run:
    """A compiled function of arrays by name; outputs beyond the named ones are left out."""

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = function([given[info.name] for info in inputs])
        return dict(zip((spec.name for spec in outputs), results, strict=False))

    return run


def _source_info(
    folder: Path, compiled: CompiledModel, config: Mapping[str, Any], model: ModelInfo
) -> SourceInfo:
    """Describes the reading half of an encoder-decoder."""
    if compiled.encoder is None:
        raise UsageError(f"{folder} holds no encoder, but {model.architecture} has one; export the model again")
    tokens, context = read_target_tokens(folder), source_context(folder)
    limits = dataclasses.replace(model, max_length=context)
    caches = len(compiled.encoder.state)
    return SourceInfo(
        context=context,
        start_id=tokens.start,
        forced_first=tokens.forced_first,
        forced_last=tokens.forced_last,
        inputs=input_specs(compiled.encoder.inputs, config, model=limits, source_context=context),
        outputs=plain_specs(compiled.encoder.outputs[:-caches]),
    )


def _holds_weights(bundle: Bundle, weights: Sequence[tuple[str, np.ndarray]]) -> bool:
    """Tells whether a bundle holds exactly these tensors: names alone fit every model of the architecture."""
    stored = bundle.manifest.weights
    described = [(tensor.name, tensor.dtype, tensor.shape) for tensor in stored]
    if described != [(name, array.dtype.name, array.shape) for name, array in weights]:
        return False
    data = np.memmap(bundle.path / WEIGHTS_FILE, np.uint8, mode="r")
    return all(
        np.array_equal(data[tensor.offset : tensor.offset + tensor.bytes], array.reshape(-1).view(np.uint8))
        for tensor, (_, array) in zip(stored, weights, strict=True)
    )


def _target_info(target: Target) -> TargetInfo:
    return TargetInfo(target.name, target.triple, target.cpu, target.features, target.isa, cpu_flags=target.cpu_flags)


def _write_tensors(path: Path, tensors: Sequence[tuple[str, np.ndarray]]) -> list[StoredTensor]:
    """Writes arrays one after the other, each at a multiple of 64 bytes."""
    stored = []
    with path.open("wb") as stream:
        for name, array in tensors:
            dtype = array.dtype.name
            if dtype not in ITEM_BYTES or array.size == 0:
                raise FormatError(f"tensor {name!r} is {dtype} of shape {array.shape}, which no bundle can hold")
            offset = aligned(stream.tell(), WEIGHT_ALIGNMENT)
            stream.write(bytes(offset - stream.tell()))
            stream.write(np.ascontiguousarray(array).data)
            stored.append(StoredTensor(name, dtype, array.shape, offset, array.nbytes))
    return stored


def _write_golden(path: Path, content: Content) -> tuple[list[StoredRun], StoredRun | None]:
    """Writes the golden runs, and returns where they lie, and where that of ``encode`` does."""
    runs = [(run, content.inputs, content.outputs) for run in content.golden]
    source = content.generation.source if content.generation is not None else None
    if source is not None and content.source is not None:
        runs.append((content.source, source.inputs, source.outputs))
    tensors = []
    for run, inputs, outputs in runs:
        tensors += [(spec.name, run.inputs[spec.name]) for spec in inputs]
        tensors += [(spec.name, run.outputs[spec.name]) for spec in outputs]
    stored = iter(_write_tensors(path, tensors))
    places = [
        StoredRun(tuple(next(stored) for _ in inputs), tuple(next(stored) for _ in outputs))
        for _, inputs, outputs in runs
    ]
    count = len(content.golden)
    return places[:count], places[count] if len(places) > count else None


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_record(path) for path in files}
