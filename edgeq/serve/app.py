"""The routes of the server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgeq.errors import EdgeqError
from edgeq.serve import schemas
from edgeq.serve.completions import complete, completion_options, prompts_of, stream
from edgeq.serve.limits import Limits, RefusedError
from edgeq.serve.metrics import CONTENT_TYPE, Metrics
from edgeq.serve.models import ServedModel, named

_Result = TypeVar("_Result")
_CLIENT_GONE = 499
"""What nginx writes for a client that did not wait; it is in the metrics only."""


class Server:
    """What the routes share.

    Args:
        models: Bundles by name.
        limits: What a request may ask for.
        metrics: Where it is counted.
    """

    def __init__(self, models: Mapping[str, ServedModel], *, limits: Limits, metrics: Metrics) -> None:
        self._models, self._limits, self._metrics = models, limits, metrics
        self._started = int(time.time())

    def app(self) -> Starlette:
        """The ASGI application."""
        posts = {
            "/v1/embeddings": self._embeddings,
            "/v1/completions": self._completions,
            "/rerank": self._rerank,
            "/v1/rerank": self._rerank,
            "/predict": self._predict,
        }
        gets = {"/health": self._health, "/metrics": self._metrics_page, "/v1/models": self._list_models}
        routes = [Route(path, self._counted(path, answer), methods=["POST"]) for path, answer in posts.items()]
        routes += [Route(path, self._counted(path, answer), methods=["GET"]) for path, answer in gets.items()]
        return Starlette(routes=routes, exception_handlers={HTTPException: _wrong_address}, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        for model in self._models.values():
            await asyncio.to_thread(model.close)

    def _counted(
        self, path: str, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Answers a request, with an error where it is refused, and counts it."""

        async def run(request: Request) -> Response:
            start, status = time.perf_counter(), _CLIENT_GONE
            try:
                response = await _answered(request, answer)
                status = response.status_code
            finally:
                self._metrics.requests.labels(path, str(status)).inc()
                self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
            return response

        return run

    async def _parsed(self, request: Request, schema: type[schemas.AnyRequest]) -> schemas.AnyRequest:
        return schemas.parse(schema, await _body(request, self._limits))

    async def _embeddings(self, request: Request) -> Response:
        asked = await self._parsed(request, schemas.EmbeddingsRequest)
        model = named(self._models, asked.model)
        if asked.dimensions not in (None, model.bundle.model.width):
            message = f"dimensions: the model's embeddings have {model.bundle.model.width} values; leave it out"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message, field="dimensions")
        texts = prompts_of(asked.input)
        embed = model.embed(texts, prompt_name=asked.prompt_name, field="input")
        results, tokens = await _unless_gone(request, embed)
        data = []
        for index, result in enumerate(results):
            vector = np.asarray(result.embedding, "<f4")
            as_text = asked.encoding_format == "base64"
            values = base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist()
            item = {"object": "embedding", "index": index, "embedding": values}
            data.append({**item, "truncated": True} if result.truncated else item)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})

    async def _completions(self, request: Request) -> Response:
        asked = await self._parsed(request, schemas.CompletionsRequest)
        model = named(self._models, asked.model)
        texts = await model.generate(prompts_of(asked.prompt), completion_options(asked, model), field="prompt")
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }
        counted = self._metrics.tokens.labels(model.name, "generated").inc
        if asked.stream:
            events = await stream(texts, asked, head, counted)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        return JSONResponse(await _unless_gone(request, complete(texts, asked, head, counted)))

    async def _rerank(self, request: Request) -> Response:
        asked = await self._parsed(request, schemas.RerankRequest)
        model = named(self._models, asked.model)
        scores, tokens = await _unless_gone(request, model.rerank(asked.query, asked.documents))
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.top_n]
        results = []
        for index in order:
            item: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
            results.append({**item, "document": asked.documents[index]} if asked.return_documents else item)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"model": model.name, "results": results, "usage": usage})

    async def _predict(self, request: Request) -> Response:
        asked = await self._parsed(request, schemas.PredictRequest)
        model = named(self._models, asked.model)
        texts = [asked.texts] if isinstance(asked.texts, str) else asked.texts
        predict = model.predict(texts, prompt_name=asked.prompt_name, field="texts")
        results, tokens = await _unless_gone(request, predict)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"model": model.name, "results": [r.to_json() for r in results], "usage": usage})

    async def _list_models(self, _request: Request) -> Response:
        data = [
            {"id": name, "object": "model", "created": self._started, "owned_by": "edgeq", "task": model.task}
            for name, model in self._models.items()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _health(self, _request: Request) -> Response:
        waiting = {name: model.waiting for name, model in self._models.items()}
        return JSONResponse({"status": "ok", "waiting": waiting})

    async def _metrics_page(self, _request: Request) -> Response:
        return Response(self._metrics.page(), media_type=CONTENT_TYPE)


async def _body(request: Request, limits: Limits) -> bytes:
    """Reads a body of bounded size in bounded time.

    Raises:
        RefusedError: If it is too large, or does not arrive.
    """
    large = f"the body may have at most {limits.body} bytes; send less at once"
    if int(request.headers.get("content-length", "0")) > limits.body:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, large)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, large)
    except TimeoutError:
        message = f"the body did not arrive within {limits.body_seconds:g} seconds"
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, message) from None
    return bytes(body)


async def _unless_gone(request: Request, work: Awaitable[_Result]) -> _Result:
    """Awaits work, and ends it if the client does not wait for it any more.

    Raises:
        ClientDisconnect: If it has gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _answered(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        return await answer(request)
    except RefusedError as error:
        return error_response(error.status, str(error), field=error.field)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)
    except EdgeqError as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY if error.exit_code == 2 else HTTPStatus.INTERNAL_SERVER_ERROR
        return error_response(status, str(error))


def error_response(status: int, message: str, *, field: str | None = None) -> Response:
    """Returns an error as OpenAI's clients read it."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    headers = {"Retry-After": "1"} if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) else None
    error = {"message": message, "type": kind, "param": field, "code": None}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


async def _wrong_address(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    path = json.dumps(request.url.path)
    messages = {
        HTTPStatus.NOT_FOUND: f"there is nothing at {path}; see /v1/models and the documentation of edgeq serve",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {request.method}",
    }
    return error_response(status, messages.get(HTTPStatus(status), "the request cannot be answered"))
