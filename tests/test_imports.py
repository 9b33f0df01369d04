"""What is imported when: the board's runtime stays light, and no module exists twice."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq

HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "pydantic", "typer", "rich", "matplotlib", "scipy"}
LINKED = {"export", "targets", "models"}


def modules_after(statement):
    """Top-level names in ``sys.modules`` after a statement in a fresh process."""
    script = (
        f"{statement}\n"
        "import json, sys\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_edgeq_costs_nothing():
    bare, names = modules_after("pass"), modules_after("import edgeq; dir(edgeq)")
    assert not names & (HEAVY | {"tvm", "numpy"})
    assert len(names - bare) < 20, "modules of Python's own library take time too"


RUNTIME = ("edgeq.errors", "edgeq.formats", "edgeq.reading", "edgeq.targets.runtime")
"""What of ours the runtime of a board may import."""


def imports_of(path):
    """Every module that a file imports, at any place."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_boards_runtime_imports_numpy_and_little_of_ours():
    known = {*sys.stdlib_module_names, "numpy", "cryptography"}  # the last one for signatures, where it is asked for
    files = [*(Path(edgeq.__file__).parent / "targets" / "runtime").glob("*.py")]
    files += [Path(edgeq.__file__).parent / name for name in ("errors.py", "reading.py")]
    assert len(files) > 30
    for path in files:
        for name in imports_of(path):
            is_ours = any(name == allowed or name.startswith(f"{allowed}.") for allowed in RUNTIME)
            assert is_ours or name.split(".")[0] in known, f"{path.name} imports {name}"


def test_the_boards_runtime_needs_numpy_only():
    names = modules_after(
        "import edgeq.targets.runtime.loader, edgeq.targets.runtime.text, edgeq; edgeq.load"
    )
    assert not names & (HEAVY | {"tvm"})
    assert not names & LINKED


@pytest.mark.parametrize("module", ["formats.low_bit", "formats.packing", "ledger"])
def test_formats_need_numpy_only(module):
    names = modules_after(f"import edgeq.{module}")
    assert not names & (HEAVY | {"tvm"})


def test_the_compiler_never_imports_torch():
    names = modules_after(
        "import edgeq.targets.bundle.writer, edgeq.targets.compiler.compile\n"
        "import edgeq.targets.devices.profiler, edgeq.targets.devices.emulator"
    )
    assert not names & {"torch", "transformers"}
    assert not names & LINKED


def test_help_and_wrong_usage_do_not_wait_for_torch():
    names = modules_after("import edgeq.cli.main as cli; cli.main(['compress', '--help'])")
    assert not names & {"torch", "transformers", "onnx", "onnxruntime", "tvm"}


@pytest.mark.slow
def test_the_whole_package_makes_no_second_copy_of_a_linked_folder():
    names = modules_after(
        "import pkgutil, importlib, edgeq\n"
        "for module in pkgutil.walk_packages(edgeq.__path__, 'edgeq.'):\n"
        "    importlib.import_module(module.name)"
    )
    assert not names & LINKED


def test_this_very_process_has_no_second_copy_either():
    copies = [name for name in sys.modules if name.split(".")[0] in LINKED]
    assert copies == []
