"""What the marks before statements say, beside coverage's own tracer."""

import importlib
import sys
from pathlib import Path

import coverage
import pytest

from tests import marked_lines

SOURCE = '''"""A module with every kind of statement."""
from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass


@functools.cache
@functools.wraps(
    print
)
def decorated(value: int) -> int:
    """Only this text."""


@dataclass
class Point:
    """A class."""

    x: int = 0
    y: int = 1

    def total(self) -> int:
        return (
            self.x
            + self.y
        )

    @property
    def never(self) -> int:
        return self.x


def branches(value):
    if value > 2:
        found = "large"
    elif value > 1:
        found = "middle"
    else:
        found = "small"
    while value:
        value -= 1
        if value == 7:
            break
    else:
        found += "!"
    for index in range(3):
        with contextlib.suppress(KeyError):
            {}[index]
            found = "never"
    match found:
        case "middle!":
            found = "matched"
        case _:
            found = "another"
    return found


def errors():
    global counted
    counted = 1
    try:
        raise ValueError
    except ValueError:
        counted += 1
    else:
        counted = 0
    finally:
        counted += 1
    if counted: counted += 1
    return [
        item for item in range(
            counted
        )
    ]


def generator():
    yield from (step for step in range(2))
    try:
        yield 2
    finally:
        nothing = lambda: (
            None
        )


decorated(1)
assert Point().total() == 1
assert branches(2) == "matched"
assert len(errors()) == 4
assert list(generator()) == [0, 1, 2]
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with this module; what is marked in it is told apart from what this run marks."""
    folder = tmp_path / "sampled"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "statements.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(marked_lines, "PACKAGE", "sampled")
    monkeypatch.setattr(marked_lines, "_marks", {})
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "sampled"]:
        del sys.modules[name]


def test_marks_are_what_a_tracer_sees(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = package / "statements.py"
    traced = coverage.Coverage(data_file=None, config_file=False, include=[str(file)])
    traced.start()
    try:
        exec(compile(SOURCE, str(file), "exec", dont_inherit=True), {"__name__": "sys"})  # noqa: S102
    finally:
        traced.stop()
    _, statements, _, wanted, _ = traced.analysis2(str(file))

    monkeypatch.setattr(sys, "meta_path", [marked_lines._Finder(), *sys.meta_path])
    importlib.import_module("sampled.statements")
    lines = [line for line, mark in enumerate(marked_lines._marks[str(file.resolve())]) if mark]
    found = coverage.Coverage(data_file=None, config_file=False, include=[str(file)])
    found.get_data().add_lines({str(file): lines})
    _, same, _, missing, _ = found.analysis2(str(file))
    assert same == statements
    assert missing == wanted
    assert {SOURCE.splitlines()[line - 1].strip() for line in missing} == {
        *("return self.x", 'found = "large"', 'found = "small"', "break", 'found = "never"'),
        *("case _:", 'found = "another"'),
    }


def test_a_module_that_is_imported_again_keeps_its_marks(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [marked_lines._Finder(), *sys.meta_path])
    module = importlib.import_module("sampled.statements")
    marks = marked_lines._marks[str((package / "statements.py").resolve())]
    assert importlib.reload(module).__marks__ is marks
    assert module.branches(3)
    assert marks[SOURCE.splitlines().index('        found = "large"') + 1]


def test_other_packages_stay_as_they_are() -> None:
    assert marked_lines._Finder.find_spec("json", None) is None
