"""Texts on their way into a bundle that gives one vector a text, and the shortest way to those vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.text_batches import TOKEN_BUDGET, windows
from edgeq.targets.runtime.text_options import plain_options, text_options
from edgeq.targets.runtime.texts import Text, Texts, to_pairs, to_utf8

if TYPE_CHECKING:
    from edgeq.targets.runtime.text_calls import TextCalls

READS_A_SOURCE = "generates a text from a text; use `edgeq run`"
_TEXTS = ctypes.POINTER(native.Text)
_PLAIN = {"prompt_name": None, "token_budget": TOKEN_BUDGET, "on_long": None, "max_tokens": None}
"""How :func:`encode` reads texts where a caller asks for nothing else."""


def task_of(bundle: TextCalls) -> str:
    """Returns the task of a bundle that gives one vector a text.

    Raises:
        UsageError: If it does something else.
    """
    task = bundle.model.task
    if task == "embed" or task == "classify":
        return task
    if task == "generate":
        raise UsageError(f"bundle {bundle.path} generates text from prompts; use `edgeq generate`")
    if task == "seq2seq":
        raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
    from edgeq.formats.tasks import TASKS

    raise UsageError(
        f"bundle {bundle.path} gives {TASKS[task].does}, neither embeddings nor labels of texts; use `Bundle.{task}`"
    )


def encode(bundle: TextCalls, texts: Iterable[Text], **reading: Any) -> np.ndarray:
    """Returns one vector a text; see :meth:`edgeq.targets.runtime.loader.Bundle.encode`."""
    if task_of(bundle) == "classify":
        raise UsageError(f"bundle {bundle.path} classifies texts and gives labels, not embeddings; use predict()")
    width = bundle.model.width
    if reading == _PLAIN and isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], str):
        # A search embeds one query after the other; the general way takes Python twice as long.
        return bundle.session.embed_one(to_utf8(texts[0], "text", 1), plain_options(), width)
    parts = [
        bundle.session.embed(given_texts(window, options), options, width)[0]
        for window, options in text_windows(texts, reading)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, width), np.float32)


def text_windows(texts: Iterable[Text], reading: dict[str, Any]) -> Iterator[tuple[list[Text], native.TextOptions]]:
    """Yields texts in windows of bounded size with the options of their call, which number them on."""
    options = text_options(**reading)
    if isinstance(texts, list) and len(texts) == 1:
        yield texts, options
        return
    for window in windows(texts, token_budget=options.token_budget):
        yield window, options
        options.first_number += len(window)


def given_texts(window: list[Text], options: native.TextOptions) -> Texts:
    """Returns a window as the library takes it; second texts of pairs go into the options."""
    texts, seconds = to_pairs(window, first=options.first_number)
    options.seconds = None if seconds is None else ctypes.cast(seconds, _TEXTS)
    return texts
