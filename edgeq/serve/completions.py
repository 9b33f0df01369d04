"""``/v1/completions``: generated texts as OpenAI has them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.serve.generation_queue import TextPiece
from edgeq.serve.models import ServedModel
from edgeq.serve.schemas import CompletionsRequest
from edgeq.targets.runtime.settings import changed_sampling

_FINISHES = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}
"""OpenAI's names of the reasons why a text ended."""


def prompts_of(given: Any) -> Any:
    """Returns a list of texts or of lists of token ids, from what a body may have in their place."""
    return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


def completion_options(asked: CompletionsRequest, model: ServedModel) -> dict[str, Any]:
    """Returns the arguments of ``Bundle.generate`` that a request asks for.

    Raises:
        UsageError: If they make no sense.
    """
    sampling = None
    changes = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
    if model.bundle.manifest.generation is not None and any(getattr(asked, name) is not None for name in changes):
        settings = model.bundle.generation.settings
        sampling = changed_sampling(settings, **{name: getattr(asked, name) for name in changes})
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return {"max_new_tokens": asked.max_tokens, "sampling": sampling, "stop": stop}


class _Usage:
    """Tokens of a request."""

    def __init__(self) -> None:
        self.prompt = self.generated = 0

    def add(self, piece: TextPiece, counted: Callable[[int], None]) -> None:
        if piece.whole is not None:
            self.prompt += piece.whole.prompt_tokens
            self.generated += len(piece.whole.ids)
            counted(len(piece.whole.ids))

    def to_json(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
        }


async def complete(
    texts: list[AsyncGenerator[TextPiece, None]], asked: CompletionsRequest, head: dict[str, Any],
    counted: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    """Returns the whole answer.

    Args:
        texts: The texts that are made.
        asked: The request.
        head: What every answer begins with.
        counted: Takes the number of tokens of each text.
    """
    usage = _Usage()

    async def whole(pieces: AsyncGenerator[TextPiece, None]) -> TextPiece:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.whole is not None:
                    return piece
        raise EdgeqError("a text ended without its last piece")

    choices = []
    for index, piece in enumerate(await asyncio.gather(*map(whole, texts))):
        usage.add(piece, counted)
        choices.append(_choice(index, piece, piece.whole.text if piece.whole else "", asked))
    return {**head, "choices": choices, "usage": usage.to_json()}


def _choice(index: int, piece: TextPiece, text: str, asked: CompletionsRequest) -> dict[str, Any]:
    whole = piece.whole
    if asked.echo and whole is not None and not asked.stream:
        text = (whole.prompt or "") + text
    finish = None if whole is None else _FINISHES[whole.finish]
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


async def stream(
    texts: list[AsyncGenerator[TextPiece, None]], asked: CompletionsRequest, head: dict[str, Any],
    counted: Callable[[int], None],
) -> AsyncIterator[bytes]:  # fmt: skip
    """Returns the answer as server-sent events; it waits for the first piece, so that an error has its own status."""
    merged = _merged(texts)
    try:
        first = await anext(merged)
    except BaseException:
        await merged.aclose()
        raise
    return _events(first, merged, asked, head, counted)


async def _events(
    first: tuple[int, TextPiece],
    merged: AsyncGenerator[tuple[int, TextPiece], None],
    asked: CompletionsRequest,
    head: dict[str, Any],
    counted: Callable[[int], None],
) -> AsyncIterator[bytes]:
    usage = _Usage()
    wants_usage = asked.stream_options is not None and asked.stream_options.include_usage

    def event(index: int, piece: TextPiece, text: str) -> bytes:
        body = {**head, "choices": [_choice(index, piece, text, asked)]}
        return _event({**body, "usage": None} if wants_usage else body)

    async with contextlib.aclosing(merged):
        if asked.echo:
            given = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
            for index, prompt in enumerate(given):
                if isinstance(prompt, str):
                    yield event(index, TextPiece(prompt), prompt)
        yield event(*first, first[1].text)
        usage.add(first[1], counted)
        try:
            async for index, piece in merged:
                usage.add(piece, counted)
                if piece.text or piece.whole is not None:
                    yield event(index, piece, piece.text)
        except EdgeqError as error:  # the status is sent already
            yield _event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
            return
    if wants_usage:
        yield _event({**head, "choices": [], "usage": usage.to_json()})
    yield b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"


async def _merged(texts: list[AsyncGenerator[TextPiece, None]]) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """Pieces of all texts as they come, with the number of the text."""
    found: asyncio.Queue[tuple[int, TextPiece | BaseException | None]] = asyncio.Queue()

    async def read(index: int, pieces: AsyncGenerator[TextPiece, None]) -> None:
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    found.put_nowait((index, piece))
            found.put_nowait((index, None))
        except Exception as error:
            found.put_nowait((index, error))

    tasks = [asyncio.ensure_future(read(index, pieces)) for index, pieces in enumerate(texts)]
    left = len(tasks)
    try:
        while left:
            index, piece = await found.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                left -= 1
                continue
            yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
