"""A thread that generates the texts of many requests together, token by token."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import threading
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.serve.limits import RefusedError
from edgeq.targets.runtime.generation import GeneratedText, Piece
from edgeq.targets.runtime.generation_batch import GenerationBatch

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle


@dataclasses.dataclass(frozen=True)
class TextPiece:
    """What a text gained.

    Attributes:
        text: New characters; often none, as when a character is not complete.
        whole: The complete text, with the last piece only.
    """

    text: str
    whole: GeneratedText | None = None


@dataclasses.dataclass(eq=False)
class _Job:
    prompt: str | list[int]
    options: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[TextPiece | Exception] = dataclasses.field(default_factory=asyncio.Queue)
    number: int | None = None
    """In the batch, once it has begun."""

    def give(self, piece: TextPiece | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class GenerationQueue:
    """Prompts in, pieces of text out.

    Texts join a running batch as soon as it has room. A model that searches beams makes one text after the other.

    Args:
        name: Name of the thread.
        bundle: The bundle.
        together: Most texts that are made at once.
        waiting: Most texts that may wait.
    """

    def __init__(self, name: str, bundle: Bundle, *, together: int, waiting: int) -> None:
        self._bundle, self._together, self._most = bundle, together, waiting
        self._searches = bundle.generation.settings.beams.count > 1
        self._batch = None if self._searches else GenerationBatch(bundle, size=together)
        self._arrived: collections.deque[_Job] = collections.deque()
        self._gone: list[_Job] = []
        self._running: dict[int, _Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that have not begun."""
        return len(self._arrived)

    def submit(
        self, prompts: list[str] | list[list[int]], options: dict[str, Any]
    ) -> list[AsyncGenerator[TextPiece, None]]:
        """Begins texts: for each prompt an iterator over its pieces. One that is closed early drops its text.

        Args:
            prompts: Texts or token ids.
            options: Arguments of ``Bundle.generate``.

        Raises:
            RefusedError: If too many texts wait, or the server stops.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(prompt, options, loop) for prompt in prompts]
        with self._changed:
            if self._closing:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping; ask another one")
            if len(self._arrived) + len(jobs) > self._most:
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{len(self._arrived)} texts wait already and at most {self._most} may; try again in a moment",
                )
            self._arrived += jobs
            self._changed.notify()
        return [self._pieces(job) for job in jobs]

    def close(self) -> None:
        """Ends all texts, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    async def _pieces(self, job: _Job) -> AsyncGenerator[TextPiece, None]:
        try:
            while True:
                piece = await job.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.whole is not None:
                    return
        finally:
            with self._changed:
                self._gone.append(job)
                self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._arrived or self._gone or self._running or self._closing):
                    self._changed.wait()
                if self._closing:
                    break
                gone, self._gone = self._gone, []
                self._arrived = collections.deque(job for job in self._arrived if job not in gone)
                room = self._together - len(self._running)
                begun = [self._arrived.popleft() for _ in range(min(room, len(self._arrived)))]
            try:
                self._advance(gone, begun)
            except Exception as error:
                self._start_anew(error)
        stopped = RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server stopped before the text was complete")
        for job in [*self._running.values(), *self._arrived]:
            job.give(stopped)

    def _advance(self, gone: list[_Job], begun: list[_Job]) -> None:
        if self._batch is None:
            for job in begun:
                self._search(job)
            return
        for job in gone:
            if job.number is not None and self._running.get(job.number) is job:
                del self._running[job.number]
                self._batch.drop(job.number)
        for job in begun:
            if job in gone:
                continue
            try:
                job.number = self._batch.add(job.prompt, **job.options)
                self._running[job.number] = job
            except EdgeqError as error:
                job.give(error)
        piece = self._batch.next() if self._running else None
        if piece is not None:
            self._give(self._batch, piece)

    def _give(self, batch: GenerationBatch, piece: Piece) -> None:
        job = self._running[piece.prompt]
        if not piece.finish:
            job.give(TextPiece(piece.text))
            return
        whole = batch.result(piece.prompt)
        del self._running[piece.prompt]
        batch.drop(piece.prompt)
        job.give(TextPiece(piece.text, whole))

    def _search(self, job: _Job) -> None:
        """One text, by the model's own beams."""
        options = dict(job.options)
        if options.pop("stop"):
            message = "stop: a model that searches beams takes no stop texts; leave it out"
            job.give(RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field="stop"))
            return
        try:
            (made,) = self._bundle.rewrite([job.prompt], **options)
        except EdgeqError as error:
            job.give(error)
            return
        prompt = job.prompt if isinstance(job.prompt, str) else None
        job.give(TextPiece(made.generated, GeneratedText(prompt, made.tokens, made.generated, made.ids, made.finish)))

    def _start_anew(self, error: Exception) -> None:
        """A call failed, and with it all texts that ran; those that come later have a new batch."""
        for job in self._running.values():
            job.give(error)
        self._running = {}
        if not self._searches:
            self._batch = GenerationBatch(self._bundle, size=self._together)
