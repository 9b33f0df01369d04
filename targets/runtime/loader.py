"""Loads a bundle and runs it in this process.

A bundle holds native code, which runs with the rights of this process: load bundles that you trust.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime import native, tasks, text
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.generation import DEFAULT_BATCH, Generation
from edgeq.targets.runtime.inputs import checked_inputs
from edgeq.targets.runtime.machine import check_machine
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.schema import (
    ENCODE,
    GOLDEN_FILE,
    LIBRARY_FILE,
    MAIN,
    FunctionInfo,
    GenerationInfo,
    Manifest,
    StoredTensor,
    TensorSpec,
)
from edgeq.targets.runtime.self_test import SelfTest, compare_golden
from edgeq.targets.runtime.seq2seq import Rewritten, rewrite
from edgeq.targets.runtime.session import KernelTime, Model, Session
from edgeq.targets.runtime.signature import check_signature
from edgeq.targets.runtime.state import State
from edgeq.targets.runtime.text_batches import TOKEN_BUDGET
from edgeq.targets.runtime.texts import Text
from edgeq.targets.runtime.threads import choose_threads

GoldenRun = tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]
"""A function's name, its inputs and its outputs."""
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
    manifest = read_manifest(folder)
    if public_key is not None:
        check_signature(folder, public_key)
    check_machine(folder, manifest.targets)
    if LIBRARY_FILE not in manifest.files:
        raise FormatError(f"bundle {folder} holds no {LIBRARY_FILE}; compile it again")
    library = native.load_native(folder / LIBRARY_FILE, manifest.files[LIBRARY_FILE].sha256)
    chosen = choose_threads(threads, library)
    model = Model(library, folder, threads=chosen, verify=verify or public_key is not None, variant=variant)
    return Bundle(folder, manifest, model, threads=chosen)


class Bundle:
    """A loaded model: call it with arrays by input name.

    Calls from several threads are safe; they run one after the other.

    Attributes:
        path: The bundle's folder.
        manifest: Its manifest.
        threads: Threads of the kernels.
        model: The opened bundle.
        session: Memory and threads of the calls.
    """

    def __init__(self, path: Path, manifest: Manifest, model: Model, *, threads: int) -> None:
        self.path = path
        self.manifest = manifest
        self.threads = threads
        self.model = model
        self.session = Session(model, threads=threads)

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
        _ = self.generation  # says so where there is none
        return State(self.model, self.manifest, batch, threads=self.threads)

    def new_session(self) -> Session:
        """Returns memory and threads for calls beside those of this object."""
        return Session(self.model, threads=self.threads)

    def encode(
        self,
        texts: str | Iterable[Text],
        *,
        prompt_name: str | None = None,
        token_budget: int = TOKEN_BUDGET,
        on_long: str | None = None,
        max_tokens: int | None = None,
    ) -> np.ndarray:
        """Embeds texts, those of about the same length together.

        Args:
            texts: One text, or any iterable of texts (or of pairs that the model reads together).
            prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
            token_budget: Most tokens of a batch, padding included. It bounds the memory of a call and changes no bit
                of a result.
            on_long: What becomes of a text that is longer than the model takes: ``error`` refuses it, ``cut`` cuts its
                end off (or its beginning, if the model's folder says so), ``split`` reads it in rows and averages
                their embeddings, each counted by its tokens (embeddings of length 1 keep that length). None does what
                the model's folder says.
            max_tokens: Most tokens of a text, special ones included; None is as many as the model takes.

        Returns:
            float32 ``[texts, width]``, in the order of the texts.

        Raises:
            UsageError: If the bundle makes no embeddings or has no such prompt, or a text is empty or longer than the
                model allows.
        """
        given = [texts] if isinstance(texts, str) else texts
        return text.encode(
            self, given, prompt_name=prompt_name, token_budget=token_budget, on_long=on_long, max_tokens=max_tokens
        )

    def predict(
        self,
        texts: str | Iterable[Text],
        *,
        prompt_name: str | None = None,
        token_budget: int = TOKEN_BUDGET,
        on_long: str | None = None,
        max_tokens: int | None = None,
    ) -> list[text.TextResult]:
        """Classifies texts, those of about the same length together; the arguments are those of :meth:`encode`.

        Scores of a split text are made of the average of its rows' logits, each counted by its tokens.

        Returns:
            The ``label`` and the ``scores`` of each text, in the order of the texts; ``to_json()`` of one is what
            ``edgeq run`` prints.

        Raises:
            UsageError: If the bundle is no classifier or has no such prompt, or a text is empty or longer than the
                model allows.
        """
        given = [texts] if isinstance(texts, str) else texts
        return text.predict(
            self, given, prompt_name=prompt_name, token_budget=token_budget, on_long=on_long, max_tokens=max_tokens
        )

    def tag(
        self,
        texts: str | Iterable[str],
        *,
        aggregation: str = "simple",
        ignore_labels: Sequence[str] = ("O",),
        on_long: str | None = None,
        overlap: int | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[tasks.TagResult]:
        """Labels parts of texts, as transformers' token classification does.

        Args:
            texts: One text, or any iterable of texts.
            aggregation: How labels of tokens become labels of parts: ``none``, ``simple``, ``first``, ``average`` or
                ``max``, as transformers' ``aggregation_strategy``.
            ignore_labels: Labels that are left out.
            on_long: As in :meth:`encode`. The rows of a split text overlap; of entities that do, the longest stays.
            overlap: Tokens that rows have in common; None is a quarter of them.
            max_tokens: Most tokens of a row, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text is empty or longer than the model allows.
        """
        given = [texts] if isinstance(texts, str) else texts
        reading = {"on_long": on_long, "overlap": overlap, "max_tokens": max_tokens, "token_budget": token_budget}
        return tasks.tag(self, given, aggregation=aggregation, ignore_labels=ignore_labels, **reading)

    def answer(
        self,
        pairs: tuple[str, str] | Iterable[tuple[str, str]],
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[tasks.AnswerResult]:
        """Finds answers to questions in contexts of any length, as transformers' question answering does.

        Args:
            pairs: A question and its context, or any iterable of such pairs.
            top_k: Most answers to a question.
            max_answer_len: Most tokens of an answer.
            handle_impossible_answer: That there is no answer counts as one, with an empty text.
            align_to_words: Answers start and end with whole words.
            doc_stride: Tokens that the rows of a long context have in common; None is 128, or half a row where that is
                less.
            max_seq_len: Most tokens of a row; None is 384, or as many as the model takes if that is less.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text is empty or a question too long.
        """
        alone = isinstance(pairs, tuple) and len(pairs) == 2 and all(isinstance(part, str) for part in pairs)
        given: Any = [pairs] if alone else pairs
        return tasks.answer(
            self,
            given,
            top_k=top_k,
            max_answer_len=max_answer_len,
            handle_impossible_answer=handle_impossible_answer,
            align_to_words=align_to_words,
            overlap=doc_stride,
            max_tokens=max_seq_len,
            token_budget=token_budget,
        )

    def fill(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int = 5,
        targets: Sequence[str] | None = None,
        on_long: str | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[tasks.FillResult]:
        """Finds tokens for the masks in texts, as transformers' fill-mask does.

        Args:
            texts: One text, or any iterable of texts, each with the tokenizer's mask token in it.
            top_k: Tokens for each mask.
            targets: Tokens to choose from, by name; a text that is no token's name stands for its first token.
            on_long: ``error`` or ``cut`` as in :meth:`encode`.
            max_tokens: Most tokens of a text, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text has no mask or is longer than the model allows.
        """
        given = [texts] if isinstance(texts, str) else texts
        reading = {"on_long": on_long, "max_tokens": max_tokens, "token_budget": token_budget}
        return tasks.fill(self, given, top_k=top_k, targets=targets, **reading)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        prompt_name: str | None = None,
        on_long: str | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[tasks.Ranked]:
        """Sorts documents by how well they fit a query, the best first, as a cross-encoder's ``rank`` does.

        Args:
            query: The query.
            documents: Any iterable of documents, which are held in memory.
            top_k: Most documents to return; None returns all.
            prompt_name: As in :meth:`encode`, before the query.
            on_long: As in :meth:`encode`: the longer one of query and document is cut.
            max_tokens: Most tokens of a pair, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is no classifier with one class, or a text is empty or longer than the model
                allows.
        """
        return tasks.rank(
            self,
            query,
            documents,
            top_k=top_k,
            prompt_name=prompt_name,
            on_long=on_long,
            max_tokens=max_tokens,
            token_budget=token_budget,
        )

    def tokenize(
        self, texts: str | Iterable[Text], *, prompt_name: str | None = None, on_long: str | None = None
    ) -> list[list[int]]:
        """Returns the token ids of texts as the model reads them: with its prompt and special tokens, and cut.

        A text that is too long and that nothing cuts is returned whole: calls that run it refuse it.

        Args:
            texts: One text, or any iterable of texts or pairs.
            prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
            on_long: As in :meth:`encode`; the rows of a split text follow each other.

        Raises:
            UsageError: If the bundle has no tokenizer or no such prompt, or a text is empty.
        """
        given = [texts] if isinstance(texts, str) else texts
        return text.tokenize(self, given, prompt_name=prompt_name, on_long=on_long)

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
        return self._run(ENCODE, inputs, state)

    def run(self, inputs: Mapping[str, Any], *, state: State | None = None) -> dict[str, np.ndarray]:
        """Runs the model on a mapping of inputs; see :meth:`__call__`.

        A decoder reads and changes ``state``; without one it starts with empty caches.
        """
        return self._run(MAIN, inputs, state)

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

    def golden_runs(self) -> list[GoldenRun]:
        """Returns every call of the self-test; those of a decoder follow each other on one state."""
        data = np.fromfile(self.path / GOLDEN_FILE, np.uint8)
        return [
            (
                run.function,
                {tensor.name: _view(data, tensor) for tensor in run.inputs},
                {tensor.name: _view(data, tensor) for tensor in run.outputs},
            )
            for run in self.manifest.golden
        ]

    def self_test(self) -> SelfTest:
        """Runs the golden inputs and compares every bit of the outputs."""
        runs = self.golden_runs()
        batch = next(iter(runs[0][1].values())).shape[0]
        state = self.new_state(batch) if self.manifest.generation is not None else None
        outcomes = [compare_golden(self._run(name, inputs, state), expected) for name, inputs, expected in runs]
        count = sum(array.size for _, _, expected in runs for array in expected.values())
        passed = SelfTest(True, f"{count} output values agree with the golden ones in every bit")
        return next((outcome for outcome in outcomes if not outcome.ok), passed)

    def _run(self, name: str, inputs: Mapping[str, Any], state: State | None) -> dict[str, np.ndarray]:
        function, arrays, session = self._prepared(name, inputs, state)
        results = session.run(_NUMBERS[name], arrays, len(function.outputs))
        return {spec.name: result for spec, result in zip(function.outputs, results, strict=True)}

    def _times(self, name: str, inputs: Mapping[str, Any], state: State | None) -> list[KernelTime]:
        function, arrays, session = self._prepared(name, inputs, state)
        return session.time_kernels(_NUMBERS[name], arrays, len(function.outputs))

    def _prepared(
        self, name: str, inputs: Mapping[str, Any], state: State | None
    ) -> tuple[FunctionInfo, list[np.ndarray], Session]:
        function, generation, limits = self.manifest.functions.get(name), self.manifest.generation, self.manifest.model
        if function is None:
            raise UsageError(f"bundle {self.path} reads no source; use `edgeq generate`")
        if name == ENCODE and generation is not None and generation.source is not None:
            limits = dataclasses.replace(limits, max_length=generation.source.context)
        arrays = checked_inputs(inputs, function.inputs, model=limits)
        if generation is None:
            return function, arrays, self.session
        state = state or self.new_state(arrays[0].shape[0])
        if arrays[0].shape[0] != state.batch:
            raise UsageError(f"the state is for {state.batch} sequences, the inputs hold {arrays[0].shape[0]}")
        return function, arrays, state.session


def _view(data: np.ndarray, tensor: StoredTensor) -> np.ndarray:
    """The tensor's values inside ``data``; ``manifest.py`` has checked that they lie inside the file."""
    part = data[tensor.offset : tensor.offset + tensor.bytes]
    return part.view(tensor.dtype).reshape(tensor.shape)
