"""Rule ``meaning``: texts through a bundle, beside the library that people use the float model with.

:mod:`edgeq.parity.rules.meaning` judges; the modules here ask. What each task is asked, and of which library, is one
entry of :data:`edgeq.parity.meaning.run.TASKS`.
"""

from edgeq.parity.meaning.run import NativeBundle, check_meaning

__all__ = ["NativeBundle", "check_meaning"]
