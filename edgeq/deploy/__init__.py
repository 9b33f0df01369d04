"""The main job: a checkpoint and a recipe in, a folder of bundles, proof and a report out.

Names are loaded on first use: the bookkeeping of a run needs neither torch nor a compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.deploy.run import DeployResult, check_parity, deploy

__all__ = ["DeployResult", "check_parity", "deploy"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("edgeq.deploy.run"), name)
    raise AttributeError(f"module 'edgeq.deploy' has no attribute {name!r}")
