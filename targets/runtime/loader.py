"""Loads a bundle and runs it in this process.

A bundle holds native code, which runs with the rights of this process: load bundles that you trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.machine import check_machine
from edgeq.targets.runtime.manifest_file import read_head, read_manifest_file
from edgeq.targets.runtime.names import ENCODE, LIBRARY_FILE, MAIN
from edgeq.targets.runtime.session import Model, Session
from edgeq.targets.runtime.text_calls import TextCalls
from edgeq.targets.runtime.threads import choose_threads

if TYPE_CHECKING:
    import numpy as np

    from edgeq.targets.runtime.beams import Beams
    from edgeq.targets.runtime.generation import Generation
    from edgeq.targets.runtime.kernel_times import KernelTime
    from edgeq.targets.runtime.sampling import Sampling
    from edgeq.targets.runtime.schema import FunctionInfo, GenerationInfo, Manifest, TensorSpec
    from edgeq.targets.runtime.self_test import GoldenArrays, SelfTest
    from edgeq.targets.runtime.seq2seq import Rewritten
    from edgeq.targets.runtime.state import State

DEFAULT_BATCH = 8
"""Prompts that run together: each needs a cache of its own."""
_NUMBERS = {MAIN: native.MAIN, ENCODE: native.ENCODE}


def load(
    bundle: Path | str,
    *,
    threads: int | None = None,
    verify: bool = True,
    public_key: Path | str | None = None,
    variant: str | None = None,
) -> Bundle:
    """Loads a bundle made for this machine.

    Args:
        bundle: Folder made by ``edgeq compile``.
        threads: Threads of the kernels; None takes every available core. The results do not depend on it.
        verify: Compare the SHA-256 of every file first.
        public_key: Key of minisign, as a file or its second line: refuse a bundle that its owner did not sign. The
            files are then compared in any case.
        variant: Name of one of the bundle's targets, whose code is to run; None takes the best that this processor
            can run. The results do not depend on it.

    Raises:
        UsageError: If there is no bundle there, ``threads`` is not positive, or there is no such key or variant.
        FormatError: If a file is damaged, or the signature is missing or wrong.
        UnsupportedError: If the bundle is for another processor.
    """
    folder = Path(bundle)
    data = read_manifest_file(folder)
    head = read_head(data, folder)
    if public_key is not None:
        from edgeq.targets.runtime.signature import check_signature

        check_signature(folder, public_key)
    check_machine(folder, head.processors)
    if head.library is None:
        raise FormatError(f"bundle {folder} holds no {LIBRARY_FILE}; compile it again")
    library = native.load_native(folder / LIBRARY_FILE, head.library)
    chosen = choose_threads(threads, library)
    model = Model(library, folder, threads=chosen, verify=verify or public_key is not None, variant=variant)
    return Bundle(folder, data, model, threads=chosen)


class Bundle(TextCalls):
    """A loaded model: call it with arrays by input name.

    Calls from several threads are safe; they run one after the other.

    Attributes:
        path: The bundle's folder.
        threads: Threads of the kernels.
        model: The opened bundle.
        session: Memory and threads of the calls.
    """

    def __init__(self, path: Path, manifest: bytes, model: Model, *, threads: int) -> None:
        self.path = path
        self._manifest = manifest
        self._parsed: Manifest | None = None
        self.threads = threads
        self.model = model
        self.session = Session(model, threads=threads)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        # No cached_property: until Python 3.12 it has a lock, which the child of a fork may find held.
        if self._parsed is None:
            from edgeq.targets.runtime.manifest_parser import manifest_of

            self._parsed = manifest_of(self._manifest, self.path)
        return self._parsed

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
        """What the model needs to generate text.

        Raises:
            UsageError: If it makes none.
        """
        model = self.manifest.model
        if self.manifest.generation is None:
            raise UsageError(
                f"bundle {self.path} generates no text: {model.architecture} is for {model.task!r}; "
                "run it with `edgeq run`"
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
        _ = self.generation  # says so where there is none
        from edgeq.targets.runtime.state import State

        return State(self.model, self.manifest, batch, threads=self.threads)

    def beside(self, *, threads: int) -> Bundle:
        """Returns the same model with memory and threads of its own, for calls beside those of this object."""
        return Bundle(self.path, self._manifest, self.model, threads=threads)

    def new_session(self) -> Session:
        """Returns memory and threads for calls beside those of this object."""
        return Session(self.model, threads=self.threads)

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
        from edgeq.targets.runtime.generation import Generation
        from edgeq.targets.runtime.generation_options import generation_options

        options = generation_options(
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            stop=stop,
            ignore_end=ignore_end,
            batch=batch,
        )
        given = [prompts] if isinstance(prompts, str) else prompts
        return Generation(self, given, options=options, keep_logits=keep_logits)

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
        from edgeq.targets.runtime.seq2seq import rewrite

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
        """Reads encoder inputs of an encoder-decoder into a state's caches of them.

        Args:
            inputs: Arrays by input name: ``input_ids``, ``attention_mask``, ``source_lengths``.
            state: From :meth:`new_state`, for as many sequences as there are encoder inputs.

        Returns:
            The encoder's outputs by name.

        Raises:
            UsageError: If the model reads no encoder input, or an input does not fit.
        """
        return self.run_function(ENCODE, inputs, state=state)

    def run(self, inputs: Mapping[str, Any], *, state: State | None = None) -> dict[str, np.ndarray]:
        """Runs the model on a mapping of inputs; see :meth:`__call__`.

        A decoder reads and changes ``state``; without one it starts with empty caches.
        """
        return self.run_function(MAIN, inputs, state=state)

    def time_kernels(self, inputs: Mapping[str, Any], *, state: State | None = None) -> list[KernelTime]:
        """Runs the model once and returns the time of each kernel, longest first.

        The clock is read around every kernel, so the sum is larger than an undisturbed run by some
        microseconds a call.
        """
        return self._times(MAIN, inputs, state)

    def time_source_kernels(self, inputs: Mapping[str, Any], *, state: State) -> list[KernelTime]:
        """Does the same as :meth:`time_kernels` for :meth:`encode_source`."""
        return self._times(ENCODE, inputs, state)

    def golden(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the stored inputs and outputs of the first call of ``main`` in the self-test, by name."""
        return next((inputs, outputs) for function, inputs, outputs in self.golden_runs() if function == MAIN)

    def golden_runs(self) -> list[GoldenArrays]:
        """Returns every call of the self-test; those of a decoder follow each other on one state."""
        from edgeq.targets.runtime.self_test import golden_arrays

        return golden_arrays(self.path, self.manifest)

    def self_test(self) -> SelfTest:
        """Runs the golden inputs and compares every bit of the outputs."""
        from edgeq.targets.runtime.self_test import self_test

        return self_test(self)

    def run_function(
        self, name: str, inputs: Mapping[str, Any], *, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Runs a function of the model by its name; see :meth:`run` and :meth:`encode_source`."""
        function, arrays, session = self._prepared(name, inputs, state)
        results = session.run(_NUMBERS[name], arrays, len(function.outputs))
        return {spec.name: result for spec, result in zip(function.outputs, results, strict=True)}

    def _times(self, name: str, inputs: Mapping[str, Any], state: State | None) -> list[KernelTime]:
        function, arrays, session = self._prepared(name, inputs, state)
        return session.time_kernels(_NUMBERS[name], arrays, len(function.outputs))

    def _prepared(
        self, name: str, inputs: Mapping[str, Any], state: State | None
    ) -> tuple[FunctionInfo, list[np.ndarray], Session]:
        from edgeq.targets.runtime.inputs import inputs_in_order

        function = self.manifest.functions.get(name)
        if function is None:
            raise UsageError(f"bundle {self.path} has no encoder input; use `edgeq generate`")
        arrays = inputs_in_order(inputs, function.inputs)
        if self.manifest.generation is None:
            return function, arrays, self.session
        state = state or self.new_state(arrays[0].shape[0])
        if arrays[0].shape[0] != state.batch:
            raise UsageError(f"the state is for {state.batch} sequences, the inputs hold {arrays[0].shape[0]}")
        return function, arrays, state.session
