"""Library and package as others have them: CMake's install tree, an environment of pip's, the examples on top."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.targets.toolchain.libedgeq import COMPILE_FLAGS, LIBEDGEQ

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "examples"
TEXTS = ("w1 w5", "w2 w18 w7")


def _run(*command, **options):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _visible(file):
    """Names that an object file or a static library defines for others."""
    names = _run("nm", "-g", "--defined-only", file).splitlines()
    return {line.split()[2] for line in names if len(line.split()) == 3}


@pytest.mark.needs("clang")
def test_clang_has_no_warning_and_every_visible_name_is_edgeqs(tmp_path):
    """gcc's warnings are looked for with more flags where the programs of other tests are built."""
    flags = [*COMPILE_FLAGS, "-O0", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wpedantic", "-Wno-gnu"]
    for part in ("library", "program"):
        (tmp_path / part).mkdir()
        _run("clang", *flags, "-c", *sorted((LIBEDGEQ / part).glob("*.c")), cwd=tmp_path / part)
    found = set().union(*map(_visible, (tmp_path / "library").glob("*.o")))
    assert "edgeq_open" in found
    assert {name for name in found if not name.startswith("edgeq_")} == set()


def test_headers_stand_alone(needs, tmp_path):
    needs("clang")
    (tmp_path / "c.c").write_text('#include "edgeq.h"\nint main(void) { return edgeq_abi_version() == 0; }\n')
    (tmp_path / "cpp.cpp").write_text('#include "edgeq.hpp"\nint main() { return 0; }\n')
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{LIBEDGEQ / 'include'}", "-fsyntax-only"]
    _run("clang", "-std=c11", *strict, tmp_path / "c.c")
    for standard in ("c++17", "c++20"):
        _run("clang++", f"-std={standard}", *strict, tmp_path / "cpp.cpp")


@pytest.fixture(scope="module")
def tree(make_once, needs):
    """What `cmake --install` puts there."""
    needs("cmake")

    def fill(folder):
        _run("cmake", "-S", LIBEDGEQ, "-B", folder / "build", f"-DCMAKE_INSTALL_PREFIX={folder / 'tree'}")
        _run("cmake", "--build", folder / "build")
        _run("cmake", "--install", folder / "build")

    return make_once("libedgeq-tree", fill) / "tree"


def _build(source, out, *options):
    _run("cmake", "-S", source, "-B", out, *options)
    _run("cmake", "--build", out)
    return out


@pytest.mark.slow
def test_a_static_library_shows_only_its_interface(tree):
    found = _visible(next(tree.rglob("libedgeq.a")))
    assert "edgeq_open" in found
    assert {name for name in found if not name.startswith("edgeq_")} == set()


@pytest.mark.slow
def test_the_example_in_c_compares_two_sentences(tree, host_bundle, tmp_path):
    program = _build(EXAMPLES / "c", tmp_path / "found", f"-DCMAKE_PREFIX_PATH={tree}") / "compare"
    first, second = (np.float64(vector) for vector in edgeq.load(host_bundle).encode(TEXTS))
    expected = first @ second / np.sqrt((first @ first) * (second @ second))
    assert abs(float(_run(program, host_bundle, *TEXTS)) - expected) < 1e-4
    inside = _build(EXAMPLES / "c", tmp_path / "inside", f"-DEDGEQ_SOURCE={LIBEDGEQ}") / "compare"
    assert _run(inside, host_bundle, *TEXTS) == _run(program, host_bundle, *TEXTS)


@pytest.mark.slow
def test_the_example_in_cpp_streams_a_text(tree, gpt2_bundle, tmp_path):
    program = _build(EXAMPLES / "cpp", tmp_path / "found", f"-DCMAKE_PREFIX_PATH={tree}") / "stream"
    expected = _run(gpt2_bundle / "edgeq-run", gpt2_bundle, "--text", "the cat", "--generate", 12)
    found = subprocess.run([program, gpt2_bundle, "the cat", "12"], capture_output=True, text=True, check=True)
    assert found.stdout == expected
    wrong = subprocess.run([program, "/no/such", "x"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (1, "no bundle folder at /no/such: No such file or directory\n")


@pytest.fixture(scope="module")
def python(make_once):
    """Python of an environment that holds edgeq as pip installs it, numpy, and nothing else."""

    def fill(folder):
        source = folder / "source"
        source.mkdir()
        for name in ("edgeq", "export", "targets", "models"):
            shutil.copytree(REPOSITORY / name, source / name, symlinks=True)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, source / name)
        pip, offline = [sys.executable, "-m", "pip"], ["--no-deps", "--no-index", "--quiet"]
        _run(*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, source)
        venv.create(folder / "environment", with_pip=False)
        interpreter = folder / "environment" / "bin" / "python"
        _run(*pip, "--python", interpreter, "install", *offline, next(folder.glob("edgeq-*.whl")))
        packages = next((folder / "environment").glob("lib/python*/site-packages"))
        for path in Path(np.__file__).parents[1].glob("numpy*"):
            (packages / path.name).symlink_to(path)

    return make_once("edgeq-environment", fill) / "environment" / "bin" / "python"


@pytest.mark.slow
def test_the_examples_in_python_run_without_the_checkout(python, tree, host_bundle, gpt2_bundle, tmp_path):
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments):
        return _run(python, *arguments, cwd=tmp_path, env=alone)

    where = run("-c", "import edgeq; print(edgeq.__file__)")
    assert where.startswith(str(python.parents[1]))
    program = _build(EXAMPLES / "c", tmp_path / "found", f"-DCMAKE_PREFIX_PATH={tree}") / "compare"
    compared = run(EXAMPLES / "python" / "compare.py", host_bundle, *TEXTS)
    assert compared == _run(program, host_bundle, *TEXTS)
    expected = _run(gpt2_bundle / "edgeq-run", gpt2_bundle, "--text", "the cat", "--generate", 12)
    assert run(EXAMPLES / "python" / "stream.py", gpt2_bundle, "the cat", "12") == expected
    command = [python, EXAMPLES / "python" / "stream.py", "/no/such", "x", "1"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
