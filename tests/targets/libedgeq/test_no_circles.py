"""The files of the library, of the program and of ONNX Runtime's operators depend on each other one way only."""

import itertools
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from edgeq.export.ort.library import SHIM
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

INCLUDE = re.compile(r'^#include "(\w+)\.h"', re.MULTILINE)
NOT_CODE = re.compile(r"/\*.*?\*/|^\s*#.*?$|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.MULTILINE | re.DOTALL)
DEFINED = re.compile(r"^[A-Za-z_][\w *]*?\b(\w+)\([^;{}]*\) \{", re.MULTILINE)
CALLED = re.compile(r"(?<![\w.>])(\w+)\(")


def _dependencies(sources):
    """Returns for each file (``pack`` is pack.h and pack.c) those that it includes or calls functions of, and why.

    A function need not be declared in the header of its file's name, so includes alone do not show every dependency.
    """
    code = {name: NOT_CODE.sub(" ", text) for name, text in sources.items() if name.endswith(".c")}
    own = {name: set(DEFINED.findall(text)) for name, text in code.items()}
    shared = {
        name: {match[1] for match in DEFINED.finditer(text) if not match[0].startswith("static ")}
        for name, text in code.items()
    }
    files = {name.partition(".")[0] for name in sources}
    found = {file: {} for file in files}
    for name, text in sources.items():
        file = name.partition(".")[0]
        for other in files.intersection(INCLUDE.findall(text)) - {file}:
            found[file][other] = f"{name} includes {other}.h"
    for name, text in code.items():
        called = set(CALLED.findall(text)) - own[name]
        for other, functions in shared.items():
            if other != name and called & functions:
                why = f"{name} calls {min(called & functions)} of {other}"
                found[name.partition(".")[0]].setdefault(other.partition(".")[0], why)
    return found


def _circle(sources):
    """One circle as sentences, empty if there is none."""
    found = _dependencies(sources)
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        backwards = error.args[1]  # each file is one that the next depends on
        return [found[file][other] for other, file in itertools.pairwise(backwards)]
    return []


@pytest.mark.parametrize(
    ("folder", "fewest"), [(LIBEDGEQ / "library", 250), (LIBEDGEQ / "program", 40), (SHIM, 15)], ids=str
)
def test_no_file_depends_on_itself(folder, fewest):
    sources = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.[ch]")}
    assert _circle(sources) == []
    calls = [other for others in _dependencies(sources).values() for other in others]
    assert len(calls) >= fewest, "the sources are no longer understood"


def test_circles_are_found():
    sources = {
        "a.h": "int a(void);\n",
        "a.c": '#include "a.h"\n\nint a(void) {\n  return 1;\n}\n',
        "b.h": '#include "a.h"\n\nint b(void);\n',
        "b.c": '#include "b.h"\n\nstatic int c(void) {\n  return a();\n}\n\nint b(void) {\n  return c();\n}\n',
    }
    assert _circle(sources) == []
    assert sorted(_circle(sources | {"a.h": '#include "b.h"\n'})) == ["a.h includes b.h", "b.h includes a.h"]
    calling = sources["a.c"].replace("return 1", "return b()")
    assert sorted(_circle(sources | {"a.c": calling})) == ["a.c calls b of b.c", "b.h includes a.h"]
