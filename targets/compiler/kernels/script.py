"""TVMScript's decorators for kernels, made fast enough to build kernels from.

TVM asks ``inspect`` for every outer frame with its source lines, to find the running parser of a macro and the scope of
a kernel; it reads the text of a macro again for every call of it; and it compiles every part of an expression to
Python's code, names and numbers as well. Most of the time that it takes to build a kernel goes there, and none of it
is needed: what is built is the same.
"""

from __future__ import annotations

import builtins
import functools
import threading
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.parser._core import doc, parse, scan_macro, utils
from tvm.script.parser.core import evaluator
from tvm.tirx.script.parser.entry import TIRMacro

_running = threading.local()
"""``parser``: the one that reads the kernel of this thread."""


class _Evaluator(evaluator.ExprEvaluator):
    """Evaluates what stands for a value, or is made of such parts, without Python's compiler."""

    def _eval_expr(self, v: Any) -> Any:
        _running.parser = self.parser
        if type(v) in _SIMPLE:
            return _SIMPLE[type(v)](v, self.value_table)
        return super()._eval_expr(v)


def _value(node: Any, values: dict[str, Any]) -> Any:
    return _SIMPLE[type(node)](node, values) if type(node) in _SIMPLE else evaluator._eval_expr(node, values)


def _named(node: Any, values: dict[str, Any]) -> Any:
    return values[node.id] if node.id in values else getattr(builtins, node.id)


def _called(node: Any, values: dict[str, Any]) -> Any:
    positional: list[Any] = []
    for argument in node.args:
        if isinstance(argument, doc.Starred):
            positional += _value(argument.value, values)
        else:
            positional.append(_value(argument, values))
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        named |= _value(keyword.value, values) if keyword.arg is None else {keyword.arg: _value(keyword.value, values)}
    return _value(node.func, values)(*positional, **named)


_SIMPLE: dict[type, Callable[[Any, dict[str, Any]], Any]] = {
    doc.Name: _named,
    doc.Constant: lambda node, _: node.value,
    doc.Attribute: lambda node, values: getattr(_value(node.value, values), node.attr),
    doc.Subscript: lambda node, values: _value(node.value, values)[_value(node.slice, values)],
    doc.Call: _called,
}
"""How nodes are evaluated whose parts have been: they are names of their values, or constants."""

evaluator.ExprEvaluator = _Evaluator


class _Macro(TIRMacro):
    def _find_parser_def(self) -> Any:
        if getattr(_running, "parser", None) is None:
            raise RuntimeError(f"macro {self.func.__name__} was called outside a TVMScript function")
        return _running.parser

    def get_macro_def(self) -> Any:
        return _definition(self.source.source, self.func.__name__)


@functools.lru_cache(maxsize=1024)
def _definition(text: str, name: str) -> Any:
    return next(node for node in doc.parse(text).body if isinstance(node, doc.FunctionDef) and node.name == name)


def macro(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a macro of ``function``: a call within TVMScript is replaced by its body.

    Names that are not arguments are looked up where the macro is defined.
    """
    source, captured = scan_macro(function, utils.inspect_function_capture(function))
    return _Macro(source, captured, function, True)


def prim_func(*, s_tir: bool) -> Callable[[Callable[..., None]], tirx.PrimFunc]:
    """Makes a kernel of a function; it must be called ``script.prim_func``, since TVM reads the decorator's own text.

    Annotations may name globals only.

    Args:
        s_tir: Whether the kernel has blocks (``T.sblock``); TVM reads this as well from the text.
    """
    del s_tir

    def read(function: Callable[..., None]) -> tirx.PrimFunc:
        return parse(function, utils.inspect_function_capture(function))

    read.dispatch_token = "tirx"  # type: ignore[attr-defined]  # what TVM tells its decorators by
    return read
