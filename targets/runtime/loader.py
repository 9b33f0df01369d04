"""Loads a bundle and runs it in this process.

``model.so`` is native code and runs with the rights of this process: load bundles that you trust.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.digests import check_blocks
from edgeq.targets.runtime.generation import DEFAULT_BATCH, Generation
from edgeq.targets.runtime.inputs import checked_inputs
from edgeq.targets.runtime.library import KernelTime, load_library, new_machine, time_kernels, to_array, to_tensor
from edgeq.targets.runtime.machine import check_machine
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.schema import (
    GOLDEN_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    GenerationInfo,
    Manifest,
    SourceInfo,
    StoredRun,
    StoredTensor,
    TensorSpec,
)
from edgeq.targets.runtime.self_test import SelfTest, compare_golden
from edgeq.targets.runtime.seq2seq import Rewritten, rewrite
from edgeq.targets.runtime.signature import check_signature
from edgeq.targets.runtime.state import State
from edgeq.targets.runtime.threads import KernelThreads, choose_threads
from edgeq.targets.runtime.tvm_import import tvm_runtime

_KEPT_SHAPES = 8
"""Input shapes whose blocks are kept; see :meth:`Bundle.run`."""


def load(
    bundle: Path | str, *, threads: int | None = None, verify: bool = True, public_key: Path | str | None = None
) -> Bundle:
    """Loads a bundle made for this machine.

    Args:
        bundle: Folder made by ``edgeq compile``.
        threads: Threads of the kernels; None takes ``TVM_NUM_THREADS`` or else every available core.
            The results do not depend on it.
        verify: Compare the SHA-256 of every file first.
        public_key: Key of minisign, as a file or its second line: refuse a bundle that its owner did not sign. The
            files are then compared in any case.

    Raises:
        UsageError: If there is no bundle there, ``threads`` is not positive, or the key is none.
        FormatError: If a file is damaged, or the signature is missing or wrong.
        UnsupportedError: If the bundle is for another processor.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    if public_key is not None:
        check_signature(folder, public_key)
    check_machine(folder, manifest.target)
    chosen = choose_threads(threads)
    if verify or public_key is not None:
        check_blocks(folder, manifest.files, threads=chosen)
    return Bundle(folder, manifest, threads=chosen)


class Bundle:
    """A loaded model: call it with arrays by input name.

    Calls from several threads are safe; they run one after the other.

    Attributes:
        path: The bundle's folder.
        manifest: Its manifest.
        threads: Threads of the kernels.
    """

    def __init__(self, path: Path, manifest: Manifest, *, threads: int) -> None:
        self.path = path
        self.manifest = manifest
        self.threads = threads
        self._lock = threading.Lock()
        self._tvm = tvm_runtime()
        self._kernel_threads = KernelThreads(threads)
        try:
            self._library = load_library(path / MODEL_FILE)
            self._machine = new_machine(self._library)
            self._main = self._machine["main"]
            generation = manifest.generation
            self._encode = self._machine["encode"] if generation is not None and generation.source else None
        except (RuntimeError, ValueError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise FormatError(
                f"{path / MODEL_FILE} cannot be loaded: {reason}; compile the bundle again"
            ) from error
        self._weights = self._map_weights()
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, in order."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs, in order."""
        return self.manifest.outputs

    @property
    def generation(self) -> GenerationInfo:
        """What the model needs to make text.

        Raises:
            UsageError: If it makes none.
        """
        model = self.manifest.model
        if self.manifest.generation is None:
            raise UsageError(
                f"bundle {self.path} makes no text: {model.architecture} is for {model.task!r}; run it with `edgeq run`"
            )
        return self.manifest.generation

    def __call__(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Runs the model.

        Args:
            **inputs: Arrays by input name, for BERT int64 ``[batch, sequence]``: ``input_ids``,
                ``attention_mask`` (default: all ones), ``token_type_ids`` (default: all zeros).

        Returns:
            Arrays by output name.

        Raises:
            UsageError: If an input is missing, unknown, of a wrong type or shape, too long, or out of range.
        """
        return self.run(inputs)

    def new_state(self, batch: int = 1) -> State:
        """Returns empty caches for a number of sequences.

        Raises:
            UsageError: If the model keeps none: it makes no text.
        """
        return State(self.generation, batch)

    def generate(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        min_new_tokens: int | None = None,
        no_repeat_ngram_size: int | None = None,
        stop: Sequence[str] = (),
        ignore_end: bool = False,
        keep_logits: bool = False,
        batch: int = DEFAULT_BATCH,
    ) -> Generation:
        """Continues prompts; iterate over the result for tokens as they are made, or ask it for ``results()``.

        What is None is as the model's ``generation_config.json`` says: greedy and 100 tokens where that says nothing.

        Args:
            prompts: One text, or several, each a text or token ids.
            max_new_tokens: Most tokens to make for a prompt.
            sampling: How tokens are chosen.
            min_new_tokens: Tokens to make before one may end the text.
            no_repeat_ngram_size: Make no sequence of this many tokens twice; 0 allows all.
            stop: Texts that end a continuation; they are cut off.
            ignore_end: Go on after the token that ends a text.
            keep_logits: Keep the logits of every token in the results.
            batch: Most prompts that run together; what a prompt gives does not depend on it.

        Raises:
            UsageError: If the bundle makes no text, or a prompt or an option makes no sense.
        """
        return Generation(
            self,
            [prompts] if isinstance(prompts, str) else prompts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            stop=stop,
            ignore_end=ignore_end,
            keep_logits=keep_logits,
            batch=batch,
        )

    def rewrite(
        self,
        texts: str | Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        beams: Beams | None = None,
        min_new_tokens: int | None = None,
        no_repeat_ngram_size: int | None = None,
        ignore_end: bool = False,
        batch: int = DEFAULT_BATCH,
    ) -> list[Rewritten]:
        """Reads texts and writes others, with an encoder-decoder; see :func:`edgeq.targets.runtime.seq2seq.rewrite`."""
        return rewrite(
            self,
            [texts] if isinstance(texts, str) else texts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            beams=beams,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            ignore_end=ignore_end,
            batch=batch,
        )

    def encode_source(self, inputs: Mapping[str, Any], *, state: State) -> dict[str, np.ndarray]:
        """Reads sources of an encoder-decoder into the source caches of a state.

        Args:
            inputs: Arrays by input name: ``input_ids``, ``attention_mask``, ``source_lengths``.
            state: From :meth:`new_state`, for as many sequences as there are sources.

        Returns:
            The encoder's outputs by name.

        Raises:
            UsageError: If the model reads no source, or an input does not fit.
        """
        source = self._source()
        results = self._execute(self._encode, self._source_arguments(inputs, state), len(source.inputs))
        return {spec.name: to_array(result) for spec, result in zip(source.outputs, results, strict=False)}

    def run(self, inputs: Mapping[str, Any], *, state: State | None = None) -> dict[str, np.ndarray]:
        """Runs the model on a mapping of inputs; see :meth:`__call__`.

        A decoder reads and changes ``state``; without one it starts with empty caches.

        The allocator never gives back a block: a block serves only calls that need exactly its size, so
        texts of ever new lengths would fill the memory. It is emptied when a ninth shape comes along.
        """
        return self._named(self._execute(self._main, self._arguments(inputs, state), len(self.inputs)))

    def _execute(self, function: Any, arguments: list[Any], inputs: int) -> Any:
        shape = tuple(tuple(argument.shape) for argument in arguments[:inputs])
        with self._lock:
            if shape not in self._shapes:
                if len(self._shapes) >= _KEPT_SHAPES:
                    self._tvm.get_global_func("vm.builtin.memory_manager.clear")()
                    self._shapes.clear()
                self._shapes.add(shape)
            return self._kernel_threads.call(function, *arguments)

    def time_kernels(self, inputs: Mapping[str, Any], *, state: State | None = None) -> list[KernelTime]:
        """Runs the model once and returns the time of each kernel, longest first.

        The clock is read around every kernel, so the sum is larger than an undisturbed run by some
        microseconds a call.
        """
        arguments = self._arguments(inputs, state)
        with self._lock:
            return time_kernels(self._library, self._kernel_threads.call, arguments)

    def time_source_kernels(self, inputs: Mapping[str, Any], *, state: State) -> list[KernelTime]:
        """Does the same as :meth:`time_kernels` for :meth:`encode_source`."""
        arguments = self._source_arguments(inputs, state)
        with self._lock:
            return time_kernels(self._library, self._kernel_threads.call, arguments, function="encode")

    def golden(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the stored inputs and outputs of the self-test, by name; for a decoder those of the first call."""
        return self.golden_runs()[0]

    def golden_runs(self) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Returns inputs and outputs of every call of the self-test: one, or those of a decoder on one state."""
        manifest = self.manifest
        return self._stored_runs([StoredRun(manifest.golden_inputs, manifest.golden_outputs), *manifest.golden_steps])

    def golden_source(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
        """Returns inputs and outputs of the call of ``encode`` before those, for an encoder-decoder."""
        stored = self.manifest.golden_source
        return None if stored is None else self._stored_runs([stored])[0]

    def _stored_runs(self, runs: Sequence[StoredRun]) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        data = np.fromfile(self.path / GOLDEN_FILE, np.uint8)
        return [
            (
                {tensor.name: _view(data, tensor) for tensor in run.inputs},
                {tensor.name: _view(data, tensor) for tensor in run.outputs},
            )
            for run in runs
        ]

    def self_test(self) -> SelfTest:
        """Runs the golden inputs and compares every bit of the outputs."""
        runs = self.golden_runs()
        batch = next(iter(runs[0][0].values())).shape[0]
        state = self.new_state(batch) if self.manifest.generation is not None else None
        outcomes = []
        source = self.golden_source()
        if source is not None and state is not None:
            outcomes.append(compare_golden(self.encode_source(source[0], state=state), source[1]))
        outcomes += [compare_golden(self.run(inputs, state=state), expected) for inputs, expected in runs]
        count = sum(array.size for _, expected in [*([source] if source else []), *runs] for array in expected.values())
        passed = SelfTest(True, f"{count} output values agree with the golden ones in every bit")
        return next((outcome for outcome in outcomes if not outcome.ok), passed)

    def _arguments(self, inputs: Mapping[str, Any], state: State | None) -> list[Any]:
        arrays = checked_inputs(inputs, self.inputs, model=self.manifest.model)
        kept: list[Any] = []
        if self.manifest.generation is not None:
            batch = arrays[0].shape[0]
            state = state or self.new_state(batch)
            _check_batch(state, arrays)
            kept = state.tensors
        return [*(to_tensor(array) for array in arrays), *kept, *self._weights]

    def _source(self) -> SourceInfo:
        source = self.generation.source
        if source is None or self._encode is None:
            raise UsageError(f"bundle {self.path} reads no source; use `edgeq generate`")
        return source

    def _source_arguments(self, inputs: Mapping[str, Any], state: State) -> list[Any]:
        source = self._source()
        limits = dataclasses.replace(self.manifest.model, max_length=source.context)
        arrays = checked_inputs(inputs, source.inputs, model=limits)
        _check_batch(state, arrays)
        return [*(to_tensor(array) for array in arrays), *state.source_tensors, *self._weights]

    def _named(self, results: Any) -> dict[str, np.ndarray]:
        if len(results) != len(self.outputs):
            raise EdgeqError(
                f"{self.path / MODEL_FILE} returned {len(results)} outputs, the manifest lists "
                f"{len(self.outputs)}; compile the bundle again"
            )
        return {spec.name: to_array(result) for spec, result in zip(self.outputs, results, strict=True)}

    def _map_weights(self) -> list[Any]:
        """Maps ``weights.bin``; the pages stay shared with the file and are never copied."""
        if not self.manifest.weights:
            return []
        # DLPack takes no read-only arrays; copy-on-write looks writable, and nothing writes.
        data = np.memmap(self.path / WEIGHTS_FILE, np.uint8, mode="c")
        return [self._tvm.from_dlpack(_view(data, tensor)) for tensor in self.manifest.weights]


def _check_batch(state: State, arrays: Sequence[np.ndarray]) -> None:
    if state.batch != len(arrays[0]):
        raise UsageError(f"the state is for {state.batch} sequences, the inputs hold {len(arrays[0])}")


def _view(data: np.ndarray, tensor: StoredTensor) -> np.ndarray:
    part = data[tensor.offset : tensor.offset + tensor.bytes]
    return part.view(tensor.dtype).reshape(tensor.shape)
