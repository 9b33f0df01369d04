"""A thread that runs the texts of many requests together."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence
from http import HTTPStatus
from typing import Any

from edgeq.serve.limits import RefusedError

ROUND_TOKENS = 2048
"""Tokens that run before others have their turn: eight full batches of texts of about the same length."""

RunTexts = Callable[[Hashable, list[Any]], Sequence[Any]]
"""Runs texts that share a key (such as a prompt's name) and returns a result for each."""


@dataclasses.dataclass
class _Job:
    key: Hashable
    texts: Sequence[Any]
    tokens: Sequence[int]
    future: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop
    begun: int = 0
    results: list[Any] = dataclasses.field(default_factory=list)


class TextQueue:
    """Requests in, results out; a thread that is free takes what has arrived, of every request its share.

    Args:
        name: Name of the thread.
        run: What runs texts.
        waiting: Most texts that may wait.
        on_round: Is called with the number of texts that ran together.
    """

    def __init__(self, name: str, run: RunTexts, *, waiting: int, on_round: Callable[[int], None]) -> None:
        self._run, self._most, self._on_round = run, waiting, on_round
        self._jobs: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that have not begun."""
        return self._waiting

    async def submit(self, key: Hashable, texts: Sequence[Any], tokens: Sequence[int]) -> list[Any]:
        """Runs texts and returns their results in order.

        Args:
            key: Texts of one key only run together.
            texts: What ``run`` takes.
            tokens: Tokens of each.

        Raises:
            RefusedError: If too many texts wait, or the server stops.
            EdgeqError: What ``run`` raises.
        """
        loop = asyncio.get_running_loop()
        job = _Job(key, texts, tokens, loop.create_future(), loop)
        with self._changed:
            if self._closing:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping; ask another one")
            if self._waiting + len(texts) > self._most:
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{self._waiting} texts wait already and at most {self._most} may; try again in a moment",
                )
            self._waiting += len(texts)
            self._jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            self._forget(job)

    def close(self) -> None:
        """Lets the thread end when nothing waits any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _forget(self, job: _Job) -> None:
        """Takes back what nobody waits for: the client has gone, or a part of the job failed."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.texts) - job.begun

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                parts = self._next_round()
            self._on_round(sum(len(part) for _, part in parts))
            self._run_round(parts)

    def _run_round(self, parts: list[tuple[_Job, Sequence[Any]]]) -> None:
        try:
            found = iter(self._run(parts[0][0].key, [text for _, part in parts for text in part]))
        except Exception as error:
            if len(parts) == 1:
                _answer(parts[0][0], error)
                return
            for one in parts:  # what one request asks for must not spoil those of others
                self._run_round([one])
            return
        for job, part in parts:
            job.results += [next(found) for _ in part]
            if len(job.results) == len(job.texts):
                _answer(job, None)

    def _next_round(self) -> list[tuple[_Job, Sequence[Any]]]:
        """Texts that run together: a request with more than fit a round goes behind the others."""
        key, left, parts = self._jobs[0].key, ROUND_TOKENS, []
        for job in [job for job in self._jobs if job.key == key]:
            end = job.begun
            while end < len(job.texts) and left > 0:
                left -= job.tokens[end]
                end += 1
            parts.append((job, job.texts[job.begun : end]))
            self._waiting -= end - job.begun
            job.begun = end
            if end == len(job.texts):
                self._jobs.remove(job)
            if left <= 0:
                break
        if self._jobs and self._jobs[0].begun:
            self._jobs.rotate(-1)
        return parts


def _answer(job: _Job, error: Exception | None) -> None:
    def set_result() -> None:
        if job.future.done():  # the client has gone
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(job.results)

    job.loop.call_soon_threadsafe(set_result)
