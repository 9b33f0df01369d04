"""How long work tells whoever started it how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: a phrase such as ``"quantizing layers"``, and the steps done so far."""


def silent(what: str, done: int, total: int) -> None:
    """A :data:`Progress` for callers that do not care."""
