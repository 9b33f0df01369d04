"""TVMScript's decorators for kernels, made fast enough to build kernels from.

TVM asks ``inspect`` for every outer frame with its source lines, to find the running parser of a macro and the scope of
a kernel: most of the time that it takes to build one. Walking the frames themselves finds the same parser, and
kernels of functions need no frames at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.parser._core import parse, scan_macro, utils
from tvm.tirx.script.parser.entry import TIRMacro


class _Macro(TIRMacro):
    def _find_parser_def(self) -> Any:
        frame = inspect.currentframe()
        while frame is not None:
            parser = frame.f_globals.get(self.parser_object_name)
            if parser is not None:
                return parser
            frame = frame.f_back
        raise RuntimeError(f"macro {self.func.__name__} was called outside a TVMScript function")


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
