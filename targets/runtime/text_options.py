"""How texts are read: what a caller asks for, as the library takes it."""

from __future__ import annotations

import ctypes
import functools

from edgeq.errors import UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.text_batches import TOKEN_BUDGET

ON_LONG = {None: 0, "error": 1, "cut": 2, "split": 3}
"""What becomes of texts that are longer than the model takes; None is what the model's folder says."""


def text_options(
    *,
    prompt_name: str | None = None,
    token_budget: int = TOKEN_BUDGET,
    on_long: str | None = None,
    overlap: int | None = None,
    max_tokens: int | None = None,
) -> native.TextOptions:
    """Returns the options of a call.

    Args:
        prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
        token_budget: Most tokens of a batch, padding included; a text that is longer runs alone.
        on_long: A key of :data:`ON_LONG`.
        overlap: Tokens that the rows of a split text have in common; None is as the task wants it.
        max_tokens: Most tokens of a row; None is as many as the model takes.

    Raises:
        UsageError: If a value makes no sense.
    """
    options = native.TextOptions.from_buffer_copy(_without_prompt(token_budget, on_long, overlap, max_tokens))
    if prompt_name is not None:
        options.prompt_name = prompt_name.encode("utf-8", "surrogateescape")
    return options


@functools.cache
def plain_options() -> native.TextOptions:
    """Returns the options of a call that asks for nothing, always the same ones; the library does not change them."""
    return text_options()


@functools.lru_cache(maxsize=16)
def _without_prompt(token_budget: int, on_long: str | None, overlap: int | None, max_tokens: int | None) -> bytes:
    """Returns the structure's bytes: to copy them takes a fifth of the time of making them."""
    if on_long not in ON_LONG:
        raise UsageError(f"on_long must be error, cut or split, found {on_long!r}")
    if token_budget < 1:
        raise UsageError(f"the token budget must be at least 1, found {token_budget}")
    if overlap is not None and overlap < 0:
        raise UsageError(f"the overlap of rows must be at least 0, found {overlap}")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1, found {max_tokens}")
    return bytes(
        native.TextOptions(
            size=ctypes.sizeof(native.TextOptions),
            token_budget=min(token_budget, _MOST),
            max_tokens=min(max_tokens or 0, _MOST),
            overlap=-1 if overlap is None else min(overlap, _MOST),
            on_long=ON_LONG[on_long],
            first_number=1,
        )
    )


_MOST = (1 << 63) - 1
