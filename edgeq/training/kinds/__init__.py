"""Tasks whose data have a form of their own: a new one is a file here, and an entry below.

Tables of texts with a label, a score or another text, and plain texts, are read by :mod:`edgeq.training.data`.
"""

from __future__ import annotations

from edgeq.training.kinds.answers import ANSWERS
from edgeq.training.kinds.base import Kind, Reading, existing_file
from edgeq.training.kinds.masks import MASKS
from edgeq.training.kinds.rankings import RANKINGS
from edgeq.training.kinds.tags import TAGS
from edgeq.training.settings import TaskName

__all__ = ["KINDS", "Kind", "Reading", "existing_file"]

KINDS: dict[TaskName, Kind] = {"tags": TAGS, "answers": ANSWERS, "masked-words": MASKS, "ranking": RANKINGS}
"""By the name that runs and recipes have for the task."""
