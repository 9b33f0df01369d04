"""Forks of a process that has bundles open: the child has none of the other threads, and must not wait for them.

What another thread was in the middle of stays so in the child for ever: a lock that it held, a module that it imported.
Locks are made anew there, and modules that are imported when a call first needs them are imported before the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable

OF_CALLS = (
    "edgeq.formats.tasks",
    "edgeq.targets.runtime.generation",
    "edgeq.targets.runtime.generation_options",
    "edgeq.targets.runtime.inputs",
    "edgeq.targets.runtime.kernel_times",
    "edgeq.targets.runtime.manifest_parser",
    "edgeq.targets.runtime.native_generation",
    "edgeq.targets.runtime.native_tasks",
    "edgeq.targets.runtime.self_test",
    "edgeq.targets.runtime.seq2seq",
    "edgeq.targets.runtime.state",
    "edgeq.targets.runtime.tasks",
    "edgeq.targets.runtime.text",
)
"""Modules that calls import when they first need them, since a start is short."""


def after_fork(forget: Callable[[], None]) -> None:
    """Registers a function that the child of each fork calls first, on systems that have forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _import_all() -> None:
    """Imports what calls may need; waits for a thread that is importing it."""
    import importlib

    for module in OF_CALLS:
        importlib.import_module(module)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_import_all)
