"""Makes calls of a peer: ``calls.py ENGINE PACKAGE REQUEST OUTPUT``. Runs under an AArch64 Python in the emulator.

The call that is counted lies between two marks, which the emulator's plugin sees (``counter.c``). What is made ready in
the first calls is not in it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys

import numpy as np

_CALLS_BEFORE = 2
_MARK = 0x45515431
"""What the plugin looks for: an id that no process has."""


def main() -> None:
    """Loads what the request names, as ``benchmarks.speed`` does, makes the calls and writes what the last one gave."""
    engine, package, request, output = sys.argv[1:]
    call, restore = importlib.import_module(engine).load(json.loads(request))
    for _ in range(_CALLS_BEFORE):
        call()
        restore()
    _mark()
    result = call()
    _mark()
    version = importlib.import_module(package).__version__
    np.savez(output, output=np.asarray(result, np.float32), version=version)
    os._exit(0)  # the threads of some engines do not end in the emulator


def _mark() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.getsid(_MARK)


if __name__ == "__main__":
    main()
