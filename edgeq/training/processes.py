"""What several processes of one training, started by ``accelerate launch``, do one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from accelerate import PartialState


@contextlib.contextmanager
def first_process_writes() -> Iterator[bool]:
    """Yields whether this process is the one that writes; the others go on when its block has ended."""
    state = PartialState()
    try:
        yield bool(state.is_main_process)
    finally:
        state.wait_for_everyone()
