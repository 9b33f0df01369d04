"""The main job: a checkpoint and a recipe in, a folder of bundles, proof and a report out.

Names are loaded on first use: the bookkeeping of a run needs neither torch nor a compiler. The package is a function as
well: ``edgeq.deploy(source, out, recipe=...)`` is :func:`edgeq.deploy.run.deploy`.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.deploy.request import DeployRequest
    from edgeq.deploy.run import DeployResult, carry_out, check_parity, deploy

__all__ = ["DeployRequest", "DeployResult", "carry_out", "check_parity", "deploy"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "edgeq.deploy.request" if name == "DeployRequest" else "edgeq.deploy.run"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'edgeq.deploy' has no attribute {name!r}")


class _Package(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> DeployResult:
        from edgeq.deploy.run import deploy

        return deploy(*args, **options)


sys.modules[__name__].__class__ = _Package
