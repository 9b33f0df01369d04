"""What a request may ask for, and how one is refused."""

from __future__ import annotations

import dataclasses
from http import HTTPStatus

from edgeq.errors import EdgeqError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking everything.

    Attributes:
        body: Most bytes of a request's body (413).
        texts: Most texts of a request (422).
        tokens: Most tokens of a request's texts together (422).
        waiting: Most texts that wait for a bundle (429).
        together: Most generated texts that a bundle makes at once; each needs a cache of its own.
        body_seconds: Longest time in which a body must have arrived (408).
    """

    body: int = 4 << 20
    texts: int = 1024
    tokens: int = 1 << 17
    waiting: int = 4096
    together: int = 8
    body_seconds: float = 30.0


class RefusedError(EdgeqError):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        message: One sentence.
        field: Name of the field of the body that is at fault, if it is one.
    """

    def __init__(self, status: HTTPStatus, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
