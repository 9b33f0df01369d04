"""Keeps what TVM and LLVM print from the user's terminal: advice to their own developers.

They write to the process's standard error itself, below Python, so it is there that they are caught.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

_ERRORS = 2
_OF_LIBRARIES = re.compile(
    rb"\[\d\d:\d\d:\d\d\] [^\n]*\.(?:h|hpp|c|cc|cpp|cxx|py):\d+: "
    rb"|'[^'\n]*' is not a recognized (?:feature|processor) for"
)
_LOCK = threading.Lock()
_depth = 0
_stack: contextlib.ExitStack | None = None


@contextlib.contextmanager
def without_library_output() -> Iterator[None]:
    """Drops what libraries print to standard error; what Python prints appears as ever.

    Threads may be inside together: the last one to leave puts standard error back.
    """
    global _depth, _stack
    with _LOCK:
        if _depth == 0:
            _stack = contextlib.ExitStack()
            _stack.enter_context(_caught())
        _depth += 1
    try:
        yield
    finally:
        with _LOCK:
            _depth -= 1
            if _depth == 0 and _stack is not None:
                _stack.close()
                _stack = None


@contextlib.contextmanager
def _caught() -> Iterator[None]:
    try:
        terminal = os.dup(_ERRORS)
    except OSError:  # a program without standard error prints nothing
        yield
        return
    with os.fdopen(terminal, "wb", buffering=0) as out, tempfile.TemporaryFile() as caught:
        with _python_writes_to(out):
            os.dup2(caught.fileno(), _ERRORS)
            try:
                yield
            finally:
                os.dup2(out.fileno(), _ERRORS)
        caught.seek(0)
        # Whoever holds the descriptor of old, such as a handler of logs, is no library.
        for line in caught:
            if not _OF_LIBRARIES.match(line):
                out.write(line)


@contextlib.contextmanager
def _python_writes_to(out: IO[bytes]) -> Iterator[None]:
    """Lets ``sys.stderr`` write to the terminal itself, at once."""
    before = sys.stderr
    try:
        is_terminal = before.fileno() == _ERRORS
    except (AttributeError, OSError, ValueError):
        is_terminal = False
    if not is_terminal:
        yield
        return
    before.flush()
    with os.fdopen(os.dup(out.fileno()), "w", encoding=before.encoding, errors=before.errors, buffering=1) as direct:
        sys.stderr = direct
        try:
            yield
        finally:
            if sys.stderr is direct:
                sys.stderr = before
            before.flush()
