"""Models and sessions of libedgeq as Python objects."""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.forking import after_fork

if TYPE_CHECKING:
    from edgeq.targets.runtime import native_generation
    from edgeq.targets.runtime.kernel_times import KernelTime
    from edgeq.targets.runtime.texts import Texts


class Generated(NamedTuple):
    """A text that was made: ids, text, tokens of its prompt or source, why it ended, and its score in beam search."""

    ids: list[int]
    text: str
    tokens: int
    finish: str
    score: float | None


class Model:
    """A bundle, opened: code, weights, tokenizer. Threads may share it.

    Args:
        library: What :func:`native.load_native` returned.
        folder: The bundle.
        threads: Threads that compare digests.
        verify: False leaves the digests alone.
        variant: Name of one of the bundle's targets; None takes the best that runs here.

    Raises:
        FormatError: If a file of the bundle is damaged.
        UnsupportedError: If the bundle is for another processor.

    Attributes:
        task: What the model is for: a name of :data:`edgeq.formats.tasks.TASKS`.
        width: Values of an embedding, or number of classes; 0 for models that generate text.
        labels: Names of the classes of texts or tokens, in order of the logits.
        vocabulary: Number of tokens that a model that generates text knows, else 0.
        variant: Name of the target whose code runs.
    """

    def __init__(
        self, library: ctypes.CDLL, folder: Path, *, threads: int, verify: bool, variant: str | None
    ) -> None:
        options = native.OpenOptions(
            size=ctypes.sizeof(native.OpenOptions),
            variant=None if variant is None else variant.encode(),
            threads=threads,
            skip_digests=not verify,
            verify_all=verify,
        )
        self.library, self.handle = library, ctypes.c_void_p()
        path = str(folder).encode()
        status = library.edgeq_open(path, ctypes.byref(options), ctypes.byref(self.handle))
        weakref.finalize(self, library.edgeq_close, self.handle)
        native.check(status, library.edgeq_error(self.handle) if self.handle else None)
        info = library.edgeq_model_info(self.handle).contents
        self.task, self.variant = info.task.decode(), info.variant.decode()
        self.labels = tuple(label.decode() for label in info.labels[: info.label_count])
        self.width, self.vocabulary = int(info.width), int(info.vocabulary)


_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """Memory, caches and threads for calls, one after the other.

    Args:
        model: The bundle.
        threads: Threads of the kernels.
    """

    def __init__(self, model: Model, *, threads: int) -> None:
        options = native.SessionOptions(size=ctypes.sizeof(native.SessionOptions), threads=threads)
        self._model, self._handle = model, ctypes.c_void_p()
        self._library, self._lock = model.library, threading.Lock()
        self._single: tuple[native.Text, native.Reading] | None = None
        _SESSIONS.add(self)
        status = self._library.edgeq_session_open(model.handle, ctypes.byref(options), ctypes.byref(self._handle))
        weakref.finalize(self, _close, model, self._handle)
        self._check(status)

    def reset(self, batch: int) -> None:
        """Makes the caches empty, for a number of sequences."""
        with self._lock:
            self._check(self._library.edgeq_reset(self._handle, batch))

    def state(self, count: int) -> list[np.ndarray]:
        """Returns the first ``count`` tensors of the state as they are, until the session is reset."""
        arrays = []
        for index in range(count):
            tensor = native.Tensor()
            self._check(self._library.edgeq_state(self._handle, index, ctypes.byref(tensor)))
            arrays.append(native.view_of(tensor, self))
        return arrays

    def run(self, function: int, inputs: Sequence[np.ndarray], outputs: int) -> list[np.ndarray]:
        """Runs a function.

        Args:
            function: Its number.
            inputs: Contiguous arrays of the right types, which the library copies before it checks their values.
            outputs: How many outputs it has.

        Returns:
            The outputs, as arrays of their own.

        Raises:
            UsageError: If an input does not fit.
            EdgeqError: If the run fails.
        """
        given, found = native.to_tensors(inputs), (native.Tensor * outputs)()
        with self._lock:
            self._check(self._library.edgeq_run(self._handle, function, given, found))
            return [np.array(native.view_of(tensor, self)) for tensor in found]

    def time_kernels(self, function: int, inputs: Sequence[np.ndarray], outputs: int) -> list[KernelTime]:
        """Runs a function and returns the time of each kernel, longest first."""
        from edgeq.targets.runtime.kernel_times import watched

        return watched(self._library, self._handle, lambda: self.run(function, inputs, outputs), self._check)

    def embed(self, texts: Texts, options: native.TextOptions, width: int) -> tuple[np.ndarray, Any]:
        """Returns float32 ``[texts, width]`` and an array of ``edgeq_reading``."""
        count = len(texts.records)
        values, readings = np.empty((count, width), np.float32), (native.Reading * count)()
        native.check_texts(self._library)
        place = native.address_of(values)
        with self._lock:
            status = self._library.edgeq_embed_texts(self._handle, texts.records, count, options, place, readings)
            if status != native.OK:
                self._check(status)
        return values, readings

    def embed_one(self, text: bytes, options: native.TextOptions, width: int) -> np.ndarray:
        """Returns float32 ``[1, width]`` of one text in UTF-8: as :meth:`embed`, with records that are made once."""
        values = np.empty((1, width), np.float32)
        with self._lock:
            record, reading = self._single_records()
            record.text, record.size = text, len(text)
            place = ctypes.byref(ctypes.c_char.from_buffer(values.data))
            status = self._library.edgeq_embed_texts(self._handle, record, 1, options, place, reading)
            if status != native.OK:
                self._check(status)
        return values

    def _single_records(self) -> tuple[native.Text, native.Reading]:
        if self._single is None:
            native.check_texts(self._library)
            self._single = native.Text(), native.Reading()
        return self._single

    def classify(self, texts: Texts, options: native.TextOptions, width: int) -> tuple[np.ndarray, np.ndarray, Any]:
        """Returns logits, float32 ``[texts, width]``, scores, float64 ``[texts, width]``, and the readings."""
        count = len(texts.records)
        logits, scores = np.empty((count, width), np.float32), np.empty((count, width), np.float64)
        readings = (native.Reading * count)()
        native.check_texts(self._library)
        run = self._library.edgeq_classify_texts
        with self._lock:
            places = native.address_of(logits), native.address_of(scores)
            given = (texts.records, count, options, *places, readings)
            self._check(run(self._handle, *given))
        return logits, scores, readings

    def encode(self, texts: Texts, options: native.TextOptions) -> list[list[np.ndarray]]:
        """Returns the rows of each text, as arrays of :data:`native_tasks.TOKEN`."""
        from edgeq.targets.runtime import native_tasks

        encode, encoding = native_tasks.with_tasks(self._library).edgeq_encode, native_tasks.Encoding()
        found = []
        # A copy: the field itself is changed below, and reading it gives no pointer of its own.
        seconds = ctypes.cast(options.seconds, ctypes.POINTER(native.Text)) if options.seconds else None
        number = options.first_number
        own = native.TextOptions.from_buffer_copy(options)
        with self._lock:
            for index, record in enumerate(texts.records):
                own.first_number = number + index
                if seconds is not None:
                    own.seconds = ctypes.pointer(seconds[index])
                self._check(encode(self._handle, record, own, encoding))
                rows = (encoding.rows[row] for row in range(encoding.count))
                found.append([native_tasks.tokens_of(row) for row in rows])
        return found

    def find(
        self,
        function: str,
        texts: Texts,
        options: native.TextOptions,
        own: ctypes.Structure,
        found: Any,
        convert: Callable[[Any], Any],
    ) -> tuple[list[Any], Any]:
        """Runs a task whose results are tables, and converts them while they are valid.

        Args:
            function: Name of the library's function.
            texts: The texts.
            options: How they are read.
            own: Options of the task.
            found: Array that takes a table for each text.
            convert: Makes of a table what is returned for its text.

        Returns:
            The results, and an array of ``edgeq_reading``.
        """
        from edgeq.targets.runtime import native_tasks

        count = len(texts.records)
        run, readings = getattr(native_tasks.with_tasks(self._library), function), (native.Reading * count)()
        with self._lock:
            self._check(run(self._handle, texts.records, count, options, own, found, readings))
            return [convert(table) for table in found], readings

    def rank(self, query: Texts, documents: Texts, options: native.TextOptions) -> tuple[list[tuple[int, float]], Any]:
        """Returns numbers and scores of documents, the best first, and the readings in the documents' order."""
        from edgeq.targets.runtime import native_tasks

        count = len(documents.records)
        run = native_tasks.with_tasks(self._library).edgeq_rank
        found, readings = (native_tasks.Ranked * count)(), (native.Reading * count)()
        with self._lock:
            self._check(run(self._handle, query.records, documents.records, count, options, found, readings))
        return [(one.index, one.score) for one in found], readings

    def cancel(self) -> None:
        """Ends the call that another thread has in this session, if any; it then raises."""
        native.check_texts(self._library)
        self._library.edgeq_cancel(self._handle)

    def start_generation(self, texts: Texts, options: native_generation.GenerationOptions) -> None:
        """Prepares prompts or encoder inputs; every one is checked."""
        start = self._prepare_generation().edgeq_generate_start
        with self._lock:
            self._check(start(self._handle, texts.records, len(texts.records), ctypes.byref(options)))

    def open_generation(self, batch: int) -> None:
        """Forgets all texts; at most ``batch`` of those that are added run together."""
        library = self._prepare_generation()
        with self._lock:
            self._check(library.edgeq_generate_open(self._handle, batch))

    def _prepare_generation(self) -> ctypes.CDLL:
        from edgeq.targets.runtime import native_generation

        self._finishes = native_generation.FINISHES
        self._piece, self._made = native_generation.PieceRecord(), native_generation.Generated()
        self._piece_place = ctypes.byref(self._piece)
        library = native_generation.with_generation(self._library)
        self._next = library.edgeq_generate_next
        return library

    def add_text(self, text: Texts, options: native_generation.GenerationOptions) -> int:
        """Adds one text to those that are made, and returns its number."""
        number = ctypes.c_size_t()
        with self._lock:
            add = self._library.edgeq_generate_add
            self._check(add(self._handle, text.records, ctypes.byref(options), ctypes.byref(number)))
        return number.value

    def drop_text(self, number: int) -> None:
        """Forgets a text, complete or not."""
        with self._lock:
            self._check(self._library.edgeq_generate_drop(self._handle, number))

    def next_piece(self, vocabulary: int) -> tuple[int, int, str, str, np.ndarray | None] | None:
        """Makes the next token: number of its text, id, text that is certain now, why it is the last, and the logits.

        Args:
            vocabulary: Number of logits to return; 0 returns None in their place.

        Returns:
            None if every text is complete.
        """
        piece = self._piece
        with self._lock:
            status = self._next(self._handle, self._piece_place)
            if status == native.END:
                return None
            if status != native.OK:
                self._check(status)
            size = piece.text_size
            # string_at() takes twice as long.
            text = str((ctypes.c_char * size).from_address(piece.text), "utf-8") if size else ""
            logits = None
            if vocabulary and piece.logits:
                logits = np.frombuffer(ctypes.string_at(piece.logits, 4 * vocabulary), np.float32)
            finish = self._finishes[piece.finish] if piece.finish else ""
            return piece.index, piece.token, text, finish, logits

    def generated(self, number: int) -> Generated:
        """Returns what was made of a text so far."""
        record = self._made
        with self._lock:
            self._check(self._library.edgeq_generate_result(self._handle, number, ctypes.byref(record)))
            text = ctypes.string_at(record.text, record.text_size).decode() if record.text_size else ""
            score = None if math.isnan(record.score) else record.score
            ids = record.ids[: record.id_count] if record.id_count else []
            return Generated(ids, text, record.prompt_tokens, self._finishes[record.finish], score)

    def _check(self, status: int) -> None:
        if status == native.BUSY:
            raise UsageError("another thread uses these caches; give each thread a state of its own")
        if status != native.OK:
            native.check(status, self._library.edgeq_session_error(self._handle) if self._handle else None)


def _close(model: Model, handle: ctypes.c_void_p) -> None:
    """Closes a session; the model is kept until then."""
    model.library.edgeq_session_close(handle)


def _forget_threads() -> None:
    """Makes the locks anew; the library itself knows which sessions were in the middle of a call."""
    for session in _SESSIONS:
        session._lock = threading.Lock()


after_fork(_forget_threads)
