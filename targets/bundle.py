"""Writes a bundle: ONNX folder in, one folder out that runs on the target's board.

``model.so`` holds code only; the weights lie in ``weights.bin`` in the order in which ``main`` takes them,
each at a multiple of 64 bytes, and are mapped, never copied.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.files import new_folder, sha256
from edgeq.formats import WEIGHT_ALIGNMENT, aligned
from edgeq.progress import Progress, silent
from edgeq.targets.golden import BATCH, GoldenRun, Run, golden_runs
from edgeq.targets.interface import input_specs, plain_specs
from edgeq.targets.model_info import COPIED_FILES, read_config, read_end_ids, read_model_info, recipe_of
from edgeq.targets.runtime.loader import Bundle, load, open_library
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.schema import (
    GOLDEN_FILE,
    ITEM_BYTES,
    LIBRARY_FOLDER,
    MODEL_FILE,
    RUNNER_FILE,
    WEIGHTS_FILE,
    FileRecord,
    GenerationInfo,
    Manifest,
    ModelInfo,
    StoredRun,
    StoredTensor,
    TargetInfo,
    TensorSpec,
)
from edgeq.targets.runtime_wheels import package_versions, runtime_libraries
from edgeq.targets.target import Target, load_target
from edgeq.targets.toolchain import Linker, build_runner, find_linker, library_linker

if TYPE_CHECKING:
    from edgeq.targets.compiler import CompiledModel

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
    """

    model: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: Sequence[GoldenRun]
    recipe: dict[str, Any] | None
    files: Path | None
    generation: GenerationInfo | None = None


def compile_bundle(
    onnx_folder: Path | str,
    out: Path | str,
    *,
    target: Target,
    context: int | None = None,
    progress: Progress = silent,
    host_bundle: Path | None = None,
) -> Path:
    """Compiles an exported model into a bundle for one target.

    The golden output of a bundle for another machine is computed on this one: the self-test on the board
    then shows that both compute the same bits.

    Args:
        onnx_folder: Folder that ``edgeq export`` wrote.
        out: Folder to write; it appears only when it is complete.
        target: Processor to compile for.
        context: For models that make text: most tokens of a sequence, prompt included. The caches are made for it.
            None takes as many as the model has positions.
        progress: Told after each step.
        host_bundle: Bundle of the same model for this machine, which saves compiling it again.

    Returns:
        ``out``.

    Raises:
        UsageError: If the folder holds no exported model, or the model has no such context.
        FormatError: If a file in it is damaged.
        UnsupportedError: If the model needs an operator that has no kernel.
        EdgeqError: If the target's compiler or runtime libraries are missing.
    """
    source, out = Path(onnx_folder), Path(out)
    if not (source / "model.onnx").is_file():
        raise UsageError(f"{source} has no model.onnx; give a folder that `edgeq export` wrote")
    # Everything cheap that can fail comes before minutes of compiling.
    config, model, linker = read_config(source), read_model_info(source, context=context), find_linker(target)
    end_ids = read_end_ids(source)
    if not target.is_host:
        runtime_libraries(target)
    from edgeq.targets.compiler import compile_onnx

    progress(f"compiling for {target.name}", 0, 3)
    compiled = compile_onnx(source / "model.onnx", target=target)
    inputs = input_specs(compiled, config, model=model)
    outputs = plain_specs(compiled.outputs)
    generation = None
    if model.task == "generate":
        generation = GenerationInfo(model.max_length or 0, end_ids, plain_specs(compiled.state))
    progress("computing the golden output", 1, 3)
    run = model_on_this_machine(
        source, compiled, outputs=outputs, generation=generation, target=target, host_bundle=host_bundle
    )
    golden = golden_runs(inputs, model, run=run)
    progress("writing the bundle", 2, 3)
    content = Content(model, inputs, outputs, golden, recipe_of(config), source, generation)
    write_bundle(compiled, out, target=target, linker=linker, content=content)
    progress("writing the bundle", 3, 3)
    return out


def write_bundle(compiled: CompiledModel, out: Path, *, target: Target, linker: Linker, content: Content) -> None:
    """Links a compiled model and writes its bundle.

    Args:
        compiled: The executable, its interface and its weights.
        out: Folder to write; it appears only when it is complete.
        target: What ``compiled`` was compiled for.
        linker: C compiler for ``target``.
        content: Everything else.
    """
    with new_folder(out) as folder:
        link_model(compiled, folder / MODEL_FILE, linker)
        weights = _write_tensors(folder / WEIGHTS_FILE, compiled.weights)
        golden = _write_golden(folder / GOLDEN_FILE, content)
        if content.files is not None:
            for name in COPIED_FILES:
                if (content.files / name).is_file():
                    shutil.copyfile(content.files / name, folder / name)
        if not target.is_host:
            (folder / LIBRARY_FOLDER).mkdir()
            for name, path in runtime_libraries(target).items():
                shutil.copyfile(path, folder / LIBRARY_FOLDER / name)
            build_runner(linker, folder / RUNNER_FILE)
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
) -> Run:
    """Returns the model as a function that runs here.

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
        kept = bundle.new_state(BATCH) if generation is not None else None
        return lambda given: bundle.run(given, state=kept)
    if not target.is_host:
        from edgeq.targets.compiler import compile_onnx

        compiled = compile_onnx(source / "model.onnx", target=load_target("host"))
    state = []
    if generation is not None:
        state = [np.zeros(generation.state_shape(spec, BATCH), spec.dtype) for spec in generation.state]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / MODEL_FILE
        link_model(compiled, library, find_linker(load_target("host")))
        main = open_library(library, [*state, *(array for _, array in compiled.weights)])

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = main([given[info.name] for info in compiled.inputs])
        return dict(zip((spec.name for spec in outputs), results, strict=True))

    return run


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


def _write_golden(path: Path, content: Content) -> list[StoredRun]:
    tensors = []
    for run in content.golden:
        tensors += [(spec.name, run.inputs[spec.name]) for spec in content.inputs]
        tensors += [(spec.name, run.outputs[spec.name]) for spec in content.outputs]
    stored = iter(_write_tensors(path, tensors))
    return [
        StoredRun(
            tuple(next(stored) for _ in content.inputs),
            tuple(next(stored) for _ in content.outputs),
        )
        for _ in content.golden
    ]


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(sha256(path), path.stat().st_size) for path in files}
