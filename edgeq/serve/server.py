"""The server's socket, its signals, and its end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from edgeq.errors import EdgeqError, UsageError

_LARGEST_PORT = 65535


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Args:
        host: Address or name of an interface of this machine.
        port: The port; 0 takes a free one.

    Raises:
        UsageError: If the port is none, or the address is not one of this machine.
        EdgeqError: If somebody else listens there.
    """
    if not 0 <= port <= _LARGEST_PORT:
        raise UsageError(f"--port must lie in 0..{_LARGEST_PORT}, found {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address ({error}); give one of this machine") from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise EdgeqError(f"{host}:{port} cannot be listened to ({error.strerror}); give another --port") from None
    bound.set_inheritable(True)
    return bound


def serve(app: Any, bound: socket.socket, *, grace: float, on_start: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        app: The ASGI application.
        bound: The socket.
        grace: Seconds that requests have to end after a signal.
        on_start: Is called when the first request can come.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=max(1, round(grace))
    )
    server = _Server(config, on_start)
    # uvicorn hands a signal on when it has stopped; the server was told to stop, and has.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()
