"""Bundles by name, each with the thread that runs it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from edgeq.errors import EdgeqError, UsageError, nearest_name_hint
from edgeq.formats.tasks import GENERATING
from edgeq.serve.generation_queue import GenerationQueue, TextPiece
from edgeq.serve.limits import Limits, RefusedError
from edgeq.serve.metrics import Metrics
from edgeq.serve.text_queue import TextQueue
from edgeq.targets.runtime.loader import Bundle, load
from edgeq.targets.runtime.text import TextResult, run_texts

_Queue = TypeVar("_Queue", TextQueue, GenerationQueue)
_SPLITS = ("answer",)
"""Tasks whose texts are read in rows if they are long, and so may have any length."""
ROUTES = {"embed": "/v1/embeddings", "classify": "/predict or /rerank", **dict.fromkeys(GENERATING, "/v1/completions")}
"""What a task is served by; /predict if it is none of these."""


def _texts_of(bundle: Bundle, texts: list[Any], prompt_name: str | None) -> list[Any]:
    return list(run_texts(bundle, texts, prompt_name=prompt_name))


_RUNS: dict[str, Callable[[Bundle, list[Any], str | None], list[Any]]] = {
    "embed": _texts_of,
    "classify": _texts_of,
    "tag": lambda bundle, texts, _: bundle.tag(texts),
    "answer": lambda bundle, texts, _: bundle.answer(texts),
    "fill": lambda bundle, texts, _: bundle.fill(texts),
}
"""How texts of a task are run."""
_PROMPTED = ("embed", "classify")
"""Tasks whose texts may have a prompt before them."""
_TOKENIZED_AT_ONCE = 4096
"""Characters that are tokenized before other requests are looked at; more go to a thread."""


class ServedModel:
    """A bundle and the queue of what it is to run.

    Args:
        name: What requests call it.
        bundle: The bundle.
        limits: What a request may ask for.
        metrics: Where it is counted.

    Attributes:
        name: What requests call it.
        task: What it is for.
        bundle: The bundle.
    """

    def __init__(self, name: str, bundle: Bundle, *, limits: Limits, metrics: Metrics) -> None:
        self.name, self.task, self.bundle = name, bundle.model.task, bundle
        self._limits, self._metrics = limits, metrics
        # Texts are counted while the bundle runs others: that needs memory of its own.
        self._counting = bundle.beside(threads=1)
        self._queue: TextQueue | GenerationQueue
        if self.task in GENERATING:
            self._queue = GenerationQueue(name, bundle, together=limits.together, waiting=limits.waiting)
        else:
            together = metrics.together.labels(name)
            self._queue = TextQueue(name, self._run, waiting=limits.waiting, on_round=together.observe)

    @property
    def waiting(self) -> int:
        """Texts that have not begun."""
        return self._queue.waiting

    def close(self) -> None:
        """Lets the thread end: texts that wait are still run, generated ones are ended."""
        self._queue.close()

    async def embed(
        self, texts: Sequence[Any], *, prompt_name: str | None, field: str
    ) -> tuple[list[TextResult], int]:
        """Embeds texts.

        Args:
            texts: Texts or token ids.
            prompt_name: Which of the model's prompts is put before them.
            field: Where the body has them, for messages.

        Returns:
            What the model says of each text, and the number of tokens.

        Raises:
            RefusedError: If the bundle makes no embeddings, or there is too much.
        """
        queue = self._need(TextQueue, ("embed",), "/v1/embeddings")
        return await self._submit(queue, texts, prompt_name=prompt_name, field=field)

    async def predict(self, texts: Sequence[Any], *, prompt_name: str | None, field: str) -> tuple[list[Any], int]:
        """Runs texts or pairs, whatever the bundle is for but generating; see :meth:`embed`.

        Returns:
            For each text what ``edgeq run`` prints of it, by ``to_json()``; and the number of tokens.
        """
        queue = self._need(TextQueue, tuple(_RUNS), "/predict")
        if prompt_name is not None and self.task not in _PROMPTED:
            message = f"prompt_name: model {self.name!r} is for {self.task!r}, which has no prompts; leave it out"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field="prompt_name")
        return await self._submit(queue, texts, prompt_name=prompt_name, field=field)

    async def rerank(self, query: str, documents: list[str]) -> tuple[list[float], int]:
        """Returns how well each document answers a query, and the number of tokens.

        Raises:
            RefusedError: If the bundle does not read pairs to one number, or there is too much.
        """
        queue = self._need(TextQueue, ("classify",), "/rerank")
        if self.bundle.model.width != 1:
            raise RefusedError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"model {self.name!r} gives {self.bundle.model.width} scores for a pair, and reranking needs one; use "
                "/predict",
                field="model",
            )
        pairs = [(query, document) for document in documents]
        found, tokens = await self._submit(queue, pairs, prompt_name=None, field="documents")
        return [result.scores.values[0] for result in found if result.scores is not None], tokens

    async def generate(
        self, prompts: list[str] | list[list[int]], options: dict[str, Any], *, field: str
    ) -> list[AsyncGenerator[TextPiece, None]]:
        """Begins texts; see :meth:`edgeq.serve.generation_queue.GenerationQueue.submit`.

        Raises:
            RefusedError: If the bundle makes no text, or there is too much.
        """
        queue = self._need(GenerationQueue, GENERATING, "/v1/completions")
        await self._count(prompts, prompt_name=None, field=field)
        return queue.submit(prompts, options)

    async def _submit(
        self, queue: TextQueue, texts: Sequence[Any], *, prompt_name: str | None, field: str
    ) -> tuple[list[Any], int]:
        counts = await self._count(texts, prompt_name=prompt_name, field=field)
        results = await queue.submit(prompt_name, texts, counts) if texts else []
        self._metrics.texts.labels(self.name).inc(len(texts))
        return results, sum(counts)

    def _run(self, prompt_name: Any, texts: list[Any]) -> list[Any]:
        return _RUNS[self.task](self.bundle, texts, prompt_name)

    def _need(self, kind: type[_Queue], tasks: tuple[str, ...], route: str) -> _Queue:
        """The queue, if the bundle is for one of these tasks."""
        if self.task not in tasks or not isinstance(self._queue, kind):
            use = ROUTES.get(self.task, "/predict")
            message = f"model {self.name!r} is for {self.task!r}, which {route} is not for; use {use}"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field="model")
        return self._queue

    async def _count(self, texts: Sequence[Any], *, prompt_name: str | None, field: str) -> list[int]:
        """Tokens of each text, all of which are checked."""
        limits = self._limits
        if len(texts) > limits.texts:
            message = f"{field}: {len(texts)} texts, and a request may have at most {limits.texts}; send several"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)
        count = functools.partial(self._tokens_of, texts, prompt_name)
        size = sum(map(len, texts))
        try:
            counts = await asyncio.to_thread(count) if size > _TOKENIZED_AT_ONCE else count()
        except EdgeqError as error:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {error}", field=field) from None
        self._check_lengths(counts, field)
        if sum(counts) > limits.tokens:
            message = f"{field}: {sum(counts)} tokens, and a request may have at most {limits.tokens}; send several"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)
        self._metrics.tokens.labels(self.name, "prompt").inc(sum(counts))
        return counts

    def _check_lengths(self, counts: list[int], field: str) -> None:
        """Texts run together with those of others: one that would be refused then is refused before."""
        generation = self.bundle.manifest.generation
        most = self.bundle.manifest.model.max_length
        if generation is not None and generation.source is not None:
            most = generation.source.context
        if most is None or self.task in _SPLITS:
            return
        for number, count in enumerate(counts, start=1):
            if count > most:
                message = f"{field}: text {number} has {count} tokens, the model takes at most {most}; shorten it"
                raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)

    def _tokens_of(self, texts: Sequence[Any], prompt_name: str | None) -> list[int]:
        given_as_ids = [isinstance(text, list) for text in texts]
        if all(given_as_ids) and self.task in GENERATING:
            return [len(ids) for ids in texts]
        if any(given_as_ids):
            raise UsageError("texts are expected, found token ids, which only bundles that generate texts take")
        return [len(ids) for ids in self._counting.tokenize(texts, prompt_name=prompt_name)]


def load_models(
    bundles: Mapping[str, Path], *, limits: Limits, metrics: Metrics, threads: int | None, verify: bool = True
) -> dict[str, ServedModel]:
    """Loads bundles and starts their threads.

    Args:
        bundles: Paths by name.
        limits: What a request may ask for.
        metrics: Where requests are counted.
        threads: Threads of the kernels of each bundle; None takes every core that there is.
        verify: Compare the digests of all files.

    Raises:
        EdgeqError: If one cannot be loaded.
    """
    loaded = {name: load(path, threads=threads, verify=verify) for name, path in bundles.items()}
    models = {
        name: ServedModel(name, bundle, limits=limits, metrics=metrics) for name, bundle in loaded.items()
    }
    metrics.watch_waiting({name: functools.partial(getattr, model, "waiting") for name, model in models.items()})
    return models


def named(models: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """Returns the model that a request asks for; without a name the only one.

    Raises:
        RefusedError: If there is no such model.
    """
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name is not None and name in models:
        return models[name]
    known = ", ".join(models)
    message = f"model: there is none named {name!r}, only {known}{nearest_name_hint(name or '', list(models))}"
    if name is None:
        message = f"model: say which of {known} is meant"
    raise RefusedError(HTTPStatus.NOT_FOUND, message, field="model")


def bundle_names(arguments: Sequence[str]) -> dict[str, Path]:
    """Returns bundles by name, from ``PATH`` (which is named after its folder) or ``NAME=PATH``.

    Raises:
        UsageError: If two have the same name.
    """
    bundles: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = Path(argument).resolve().name, argument
        if not name or name in bundles:
            raise UsageError(f"{argument}: each bundle needs a name of its own, and {name!r} is taken; give NAME=PATH")
        bundles[name] = Path(path)
    return bundles
