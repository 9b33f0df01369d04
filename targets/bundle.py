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
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.files import new_folder, sha256
from edgeq.formats import WEIGHT_ALIGNMENT, aligned
from edgeq.progress import Progress, silent
from edgeq.targets.golden import golden_inputs
from edgeq.targets.model_info import COPIED_FILES, read_config, read_model_info, recipe_of
from edgeq.targets.runtime.loader import Bundle, load, run_library
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.schema import (
    GOLDEN_FILE,
    ITEM_BYTES,
    LIBRARY_FOLDER,
    MODEL_FILE,
    RUNNER_FILE,
    WEIGHTS_FILE,
    FileRecord,
    Manifest,
    ModelInfo,
    StoredTensor,
    TargetInfo,
    TensorSpec,
)
from edgeq.targets.runtime_wheels import package_versions, runtime_libraries
from edgeq.targets.target import Target, load_target
from edgeq.targets.toolchain import Linker, build_runner, find_linker, library_linker

if TYPE_CHECKING:
    from edgeq.targets.compiler import CompiledModel, TensorInfo

_DEFAULTS = {"attention_mask": 1, "token_type_ids": 0}
"""What transformers fills in for an input that a caller leaves out."""
_MASKS = ("attention_mask",)
_ID_LIMITS = {"input_ids": "vocab_size", "token_type_ids": "type_vocab_size"}


@dataclasses.dataclass(frozen=True)
class Content:
    """What goes into a bundle besides code and weights.

    Attributes:
        model: What the model is for.
        inputs: Its inputs, with the values they may take.
        outputs: Its outputs.
        golden_inputs: Arrays of the self-test, by input name.
        golden_outputs: What the model gives for them, by output name.
        recipe: Name and digest of the compression recipe, or None.
        files: Folder from which tokenizer and configuration are copied, or None.
    """

    model: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: Mapping[str, np.ndarray]
    golden_outputs: Mapping[str, np.ndarray]
    recipe: dict[str, Any] | None
    files: Path | None


def compile_bundle(
    onnx_folder: Path | str,
    out: Path | str,
    *,
    target: Target,
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
        progress: Told after each step.
        host_bundle: Bundle of the same model for this machine, which saves compiling it again.

    Returns:
        ``out``.

    Raises:
        UsageError: If the folder holds no exported model.
        FormatError: If a file in it is damaged.
        UnsupportedError: If the model needs an operator that has no kernel.
        EdgeqError: If the target's compiler or runtime libraries are missing.
    """
    source, out = Path(onnx_folder), Path(out)
    if not (source / "model.onnx").is_file():
        raise UsageError(f"{source} has no model.onnx; give a folder that `edgeq export` wrote")
    # Everything cheap that can fail comes before minutes of compiling.
    config, model, linker = read_config(source), read_model_info(source), find_linker(target)
    if not target.is_host:
        runtime_libraries(target)
    from edgeq.targets.compiler import compile_onnx

    progress(f"compiling for {target.name}", 0, 3)
    compiled = compile_onnx(source / "model.onnx", target=target)
    inputs = tuple(_input_spec(info, config) for info in compiled.inputs)
    outputs = tuple(TensorSpec(info.name, info.dtype, info.shape) for info in compiled.outputs)
    golden = golden_inputs(inputs, model)
    progress("computing the golden output", 1, 3)
    expected = golden_outputs(
        source, golden, compiled=compiled, outputs=outputs, target=target, host_bundle=host_bundle
    )
    progress("writing the bundle", 2, 3)
    content = Content(model, inputs, outputs, golden, expected, recipe_of(config), source)
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
        golden_in = [(spec.name, content.golden_inputs[spec.name]) for spec in content.inputs]
        golden_out = [(spec.name, content.golden_outputs[spec.name]) for spec in content.outputs]
        stored = _write_tensors(folder / GOLDEN_FILE, [*golden_in, *golden_out])
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
            golden_inputs=tuple(stored[: len(golden_in)]),
            golden_outputs=tuple(stored[len(golden_in) :]),
            files=_file_records(folder),
            tools={
                "edgeq": edgeq.__version__,
                "linker": linker.version,
                "glibc": oldest_glibc(folder),
                **package_versions(),
            },
            recipe=content.recipe,
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


def golden_outputs(
    source: Path,
    golden: Mapping[str, np.ndarray],
    *,
    compiled: CompiledModel,
    outputs: Sequence[TensorSpec],
    target: Target,
    host_bundle: Path | None,
) -> dict[str, np.ndarray]:
    """Runs the golden input on this machine.

    Args:
        source: ONNX folder, compiled again for this machine if need be.
        golden: Arrays by input name.
        compiled: The model, compiled for ``target``.
        outputs: The model's outputs.
        target: A host target runs ``compiled`` itself.
        host_bundle: Bundle of the same model for this machine, or None.

    Returns:
        Arrays by output name.

    Raises:
        UsageError: If ``host_bundle`` holds another model.
    """
    if host_bundle is not None:
        bundle = load(host_bundle)
        if not _holds_weights(bundle, compiled.weights):
            raise UsageError(f"{host_bundle} holds another model than {source}; leave it out")
        return bundle.run(golden)
    if not target.is_host:
        from edgeq.targets.compiler import compile_onnx

        compiled = compile_onnx(source / "model.onnx", target=load_target("host"))
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / MODEL_FILE
        link_model(compiled, library, find_linker(load_target("host")))
        arrays = [*(golden[info.name] for info in compiled.inputs), *(array for _, array in compiled.weights)]
        results = run_library(library, arrays)
    return dict(zip((spec.name for spec in outputs), results, strict=True))


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


def _input_spec(info: TensorInfo, config: Mapping[str, Any]) -> TensorSpec:
    minimum: int | None = None
    maximum = info.maximum
    if info.name in _MASKS:
        minimum, maximum = 0, 1
    elif info.name in _ID_LIMITS or maximum is not None:
        minimum = 0
        size = config.get(_ID_LIMITS.get(info.name, ""))
        if isinstance(size, int) and size > 0:
            maximum = size - 1 if maximum is None else min(maximum, size - 1)
    if info.name == "input_ids" and maximum is None:
        raise UnsupportedError(
            "the size of the vocabulary is neither in the graph nor in config.json, so ids cannot be "
            "checked; add 'vocab_size' to config.json"
        )
    return TensorSpec(info.name, info.dtype, info.shape, minimum, maximum, _DEFAULTS.get(info.name))


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


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(sha256(path), path.stat().st_size) for path in files}
