"""Other people's slowest code, made faster for hundreds of calls in one process.

Coverage does not follow it: on Python 3.11 its tracer sees every line of every library, which makes torch's exporter
take twice as long, and imports as well. What these calls run of ours (the ``forward`` of models) other tests run
outside of them.

For each export onnxscript reads the source text of all operators of its library again; here it does so once.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

CALLS = {
    "torch.onnx": ("export",),
    "transformers.modeling_utils": ("PreTrainedModel.save_pretrained",),
    "transformers.tokenization_utils_base": ("PreTrainedTokenizerBase.save_pretrained",),
    "matplotlib.figure": ("Figure.savefig",),
    "onnx.reference": ("ReferenceEvaluator.run",),
    "tvm.script.parser.core.doc": ("to_doc", "from_doc"),
}
"""Functions by module; those of modules that a run never imports stay as they are."""
IMPORTED = (
    *("torch", "torch.onnx", "transformers", "transformers.modeling_utils", "tvm", "tvm.relax", "onnx.reference"),
    *("onnxruntime", "onnxscript", "scipy.special", "scipy.stats", "pydantic", "typer"),
)
"""Libraries that every process of a whole run imports sooner or later."""
_OPERATORS = "onnxscript._internal.values"
_wrapped: set[tuple[str, str]] = set()


def pytest_sessionstart() -> None:
    """Imports them while coverage looks away."""
    tracer = sys.gettrace()
    if tracer is not None:
        sys.settrace(None)
        try:
            for module in IMPORTED:
                importlib.import_module(module)
        finally:
            sys.settrace(tracer)


def pytest_runtest_setup() -> None:
    """Wraps the functions of modules that have been imported meanwhile."""
    if _OPERATORS in sys.modules and (_OPERATORS, "function_ir") not in _wrapped:
        _wrapped.add((_OPERATORS, "function_ir"))
        operator = sys.modules[_OPERATORS].TracedOnnxFunction
        operator.function_ir = property(functools.cache(operator.function_ir.fget))
    if sys.gettrace() is not None:
        for module in CALLS.keys() & sys.modules.keys():
            for name in CALLS[module]:
                if (module, name) not in _wrapped:
                    _wrapped.add((module, name))
                    *owners, last = name.split(".")
                    owner = functools.reduce(getattr, owners, sys.modules[module])
                    setattr(owner, last, _untraced(getattr(owner, last)))


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(tracer)

    return call
