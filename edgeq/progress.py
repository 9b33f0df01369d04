"""How long work tells whoever started it how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: a short phrase such as ``"quantizing layers"``, and how many of how many steps are done."""


def silent(what: str, done: int, total: int) -> None:  # noqa: ARG001 - the signature is the interface
    """A :data:`Progress` for callers that do not care."""
