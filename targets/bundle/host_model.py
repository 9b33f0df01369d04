"""The model that is being compiled as functions that run here: they give a bundle's golden outputs."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.arrays import Backend
from edgeq.errors import UsageError
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.bundle.golden import BATCH
from edgeq.targets.runtime.loader import Bundle, load
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.names import ENCODE, MAIN, WEIGHTS_FILE
from edgeq.targets.runtime.schema import FunctionInfo, GenerationInfo
from edgeq.targets.toolchain.linkers import find_linker

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import CompiledModel
    from edgeq.targets.compiler.importer import WeightTensor
    from edgeq.targets.compiler.run_plan import CompiledCode


@dataclasses.dataclass(frozen=True)
class HostModel:
    """The functions of a model on one state; ``encode`` is None unless it is an encoder-decoder."""

    main: Backend
    encode: Backend | None = None


def compiled_as_host_model(
    source: Path,
    models: Sequence[CompiledModel],
    *,
    functions: Mapping[str, FunctionInfo],
    generation: GenerationInfo | None,
    target: Target,
) -> HostModel:
    """Returns a compiled model as functions.

    Args:
        source: ONNX folder, compiled again for this machine if need be.
        models: The model, compiled for each of ``target.kinds``.
        functions: Its functions.
        generation: Context of a decoder, or None.
        target: A host target runs here, and so may one of several kinds.
    """
    from edgeq.targets.compiler.compile import compile_folder
    from edgeq.targets.compiler.linking import link_code
    from edgeq.targets.compiler.run_plan import CompiledCode, aligned_zeros

    host = load_target("host")
    runs_here = [kind.is_host or (bool(target.variants) and kind.runs_on(this_machine())) for kind in target.kinds]
    compiled = models[runs_here.index(True)] if any(runs_here) else compile_folder(source, target=host)
    state = {}
    if generation is not None:
        for spec in functions[MAIN].state:
            state[spec.name] = aligned_zeros(generation.state_shape(spec.shape, BATCH), spec.dtype)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "code.so"
        link_code(compiled, library, find_linker(host))
        code = CompiledCode(compiled, library)
    runs = {name: _by_name(code, name, function, state) for name, function in functions.items()}
    return HostModel(runs[MAIN], runs.get(ENCODE))


def bundle_as_host_model(
    path: Path, source: Path, *, weights: Sequence[WeightTensor], generation: GenerationInfo | None
) -> HostModel:
    """Returns a bundle for this machine as functions.

    Args:
        path: The bundle.
        source: ONNX folder of the model, for the message of an error.
        weights: The tensors that it must hold.
        generation: Context of a decoder that it must have, or None.

    Raises:
        UsageError: If the bundle holds another model.
    """
    bundle = load(path)
    if not _holds_weights(bundle, weights) or bundle.manifest.generation != generation:
        raise UsageError(f"{path} holds another model than {source}; leave it out")
    if generation is None:
        return HostModel(bundle.run)
    state = bundle.new_state(BATCH)
    reads = functools.partial(bundle.encode_source, state=state) if generation.source is not None else None
    return HostModel(functools.partial(bundle.run, state=state), reads)


def _by_name(code: CompiledCode, name: str, function: FunctionInfo, state: Mapping[str, np.ndarray]) -> Backend:
    """A function of arrays by name."""

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = [given[spec.name] for spec in function.inputs]
        results = code.run(inputs, state=[state[spec.name] for spec in function.state], function=name)
        return dict(zip((spec.name for spec in function.outputs), results, strict=True))

    return run


def _holds_weights(bundle: Bundle, weights: Sequence[WeightTensor]) -> bool:
    """Tells whether a bundle holds exactly these tensors: names alone fit every model of the architecture."""
    stored = bundle.manifest.weights
    described = [(tensor.name, tensor.dtype, tensor.shape) for tensor in stored]
    if described != [(weight.name, weight.array.dtype.name, weight.array.shape) for weight in weights]:
        return False
    data = np.memmap(bundle.path / WEIGHTS_FILE, np.uint8, mode="r")
    return all(
        np.array_equal(data[tensor.offset : tensor.offset + tensor.bytes], weight.array.reshape(-1).view(np.uint8))
        for tensor, weight in zip(stored, weights, strict=True)
    )
