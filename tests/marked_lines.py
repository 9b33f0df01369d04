"""Coverage of edgeq without a tracer, which took a third of a whole run.

On Python 3.11 a tracer is called for each line of every library too. So with ``--cov`` edgeq's modules are compiled
with a mark before each statement, coverage's own tracer is stopped, and pytest-cov reports what was marked. With
``--cov-branch`` the tracer stays.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import coverage
import coverage.files
import pytest

PACKAGE = "edgeq"
_MARKS = "__marks__"
"""Name of the marks among a module's globals: one byte a line."""
_VARIABLE = "EDGEQ_TESTS_MARK_LINES"
"""Tells the processes of pytest-xdist, which hear of ``--cov`` only after they have imported modules."""
_marks: dict[str, bytearray] = {}
_measured: coverage.Coverage | None = None


def marked(source: bytes | str, path: str) -> CodeType:
    """Compiles a module with ``__marks__[line] = 1`` before each statement."""
    tree = ast.parse(source, path)
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, list(_marked_block(node, block)))
    return compile(tree, path, "exec", dont_inherit=True)


def _marked_block(owner: ast.AST, block: list[ast.stmt]) -> Iterator[ast.stmt]:
    if isinstance(owner, ast.ExceptHandler):
        yield _mark(owner.lineno, block[0])
    if isinstance(owner, ast.match_case):
        yield _mark(owner.pattern.lineno, block[0])
    late: list[ast.stmt] = []
    for place, statement in enumerate(block):
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        from_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if (place == 0 and is_text) or from_future:  # these must stay first
            late += [statement] if from_future else []
        else:
            for line in (*late, *getattr(statement, "decorator_list", ()), statement):
                yield _mark(line.lineno, line)
            late = []
        yield statement


def _mark(line: int, place: ast.stmt | ast.expr) -> ast.stmt:
    byte = ast.Subscript(ast.Name(_MARKS, ast.Load()), ast.Constant(line), ast.Store())
    mark = ast.Assign([byte], ast.Constant(1))
    for node in ast.walk(mark):
        ast.copy_location(node, place)
    return mark


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        return marked(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        length = self.get_data(self.path).count(b"\n") + 2
        module.__dict__[_MARKS] = _marks.setdefault(os.path.realpath(self.path), bytearray(length))
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


def _stop_tracer() -> None:
    global _measured
    running = coverage.Coverage.current()
    if running is not None and not running.get_option("run:branch"):
        _measured = running
        running.stop()


_stop_tracer()
if _measured is not None:
    os.environ[_VARIABLE] = "yes"
if _VARIABLE in os.environ:
    sys.meta_path.insert(0, _Finder())


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Stops the tracer that pytest-cov has started in a process of pytest-xdist."""
    _stop_tracer()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """Hands pytest-cov what was marked, before it saves."""
    result = yield
    if _measured is not None:
        data = _measured.get_data()
        data.add_lines({path: [line for line, mark in enumerate(marks) if mark] for path, marks in _marks.items()})
        root = Path(__file__).parents[1]
        sources: Any = _measured.get_option("run:source")
        files = [file for name in sources for file in coverage.files.find_python_files(str(root / name), False)]
        data.touch_files(os.path.realpath(file) for file in files)  # those that nothing imported count too
    return result
