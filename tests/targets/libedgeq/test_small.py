"""What a static program has in place of large functions of the C library does what those do."""

import re
import subprocess
from pathlib import Path

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

SMALL = LIBEDGEQ / "program" / "small"
FUNCTIONS = ("vsnprintf", "snprintf", "printf", "fprintf", "strtod", "strtoll", "qsort")
KNOWN = re.compile(r"%(?:0\d)?(?:\.(?:\d+|\*))?(?:[sfgdux]|zu|ju|lld|llu)|%%")
"""Conversions that ``formats.c`` prints."""
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-builtin", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="module")
def comparing(tmp_path_factory):
    """The program of ``small.c``, with the functions under other names."""
    out = tmp_path_factory.mktemp("small")
    renamed = [f"-D{name}=small_{name}" for name in FUNCTIONS]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    objects = []
    for source in sorted(SMALL.glob("*.c")):
        objects.append(str(out / f"{source.stem}.o"))
        # The C library's headers come first, under their own names.
        headers = ["-include", "stdio.h", "-include", "stdlib.h", "-include", "wchar.h"]
        command = ["cc", *FLAGS, *sanitizers, *headers, *renamed, "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    test = Path(__file__).with_name("small.c")
    program = out / "comparing"
    subprocess.run(["cc", *FLAGS, *sanitizers, str(test), *objects, "-lm", "-o", str(program)], check=True)
    return program


def test_texts_numbers_and_order_are_those_of_the_c_library(comparing):
    result = subprocess.run([comparing], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_format_of_the_program_is_known():
    """The program stops at one that is not."""
    found = 0
    for part in ("library", "program"):
        for source in (LIBEDGEQ / part).glob("*.c"):
            for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', source.read_text(encoding="utf-8")):
                text = "" if text in ("+-*/%", "%") else text  # signs of plans
                for at in re.finditer("%%|%", text):
                    assert KNOWN.match(text, at.start()), f"{source.name}: {text!r}"
                    found += 1
    assert found > 100
