"""Keeps advice of transformers from the user's terminal, where edgeq judges the matter itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import transformers


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences its warnings and its bars: missing tensors are judged, and progress is told, by the caller.

    Inside another one nothing is to be done: a change of a level makes Python look at every logger of the process.
    """
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    if verbosity != logging.ERROR:
        logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if verbosity != logging.ERROR:
            logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
