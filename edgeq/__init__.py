"""edgeq compresses BERT and GPT-2, compiles them for small CPUs, and proves what came out.

The names below are loaded on first use, so that ``import edgeq`` costs nothing and a board that only
runs bundles never imports torch, transformers or onnx.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "compress_model": "edgeq.compress",
    "export_onnx": "edgeq.export.exporter",
    "compile_bundle": "edgeq.targets.bundle.writer",
    "load": "edgeq.targets.runtime.loader",
    "TrainingRequest": "edgeq.recipes",
}

__all__ = ["TrainingRequest", "__version__", "compile_bundle", "compress_model", "deploy", "export_onnx", "load"]

for _linked in ("export", "targets", "models"):
    if (Path(__file__).parent / _linked).is_file():
        raise ImportError(
            f"edgeq/{_linked} is a plain file, not a link to ../{_linked}: this checkout was made without "
            "symbolic links (on Windows: git config core.symlinks true, then check out again)"
        )


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name == "deploy":
        return importlib.import_module("edgeq.deploy")  # a package that is a function as well
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
