"""Tests that need a program which `pip` does not bring say so here, and are skipped with a reason where it is missing.

``@pytest.mark.needs("browser")`` does it for a test; the fixture ``needs`` for a fixture, or for one of several
parameters. Names and packages are in ``tools/packages.txt``. The run's last lines say how many tests were skipped, why,
and which command brings what is missing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[1] / "tools" / "packages.txt"
_SBIN = ":/usr/sbin:/usr/local/sbin"
"""Where servers lie, which a user's PATH may leave out."""
_MADE = {
    "onnxruntime-1.20": Path(sys.prefix) / "onnxruntime-1.20.1",
    "onnxruntime-1.17": Path(sys.prefix) / "onnxruntime-1.17.3",
    "onnxruntime-1.23": Path(sys.prefix) / "onnxruntime-1.23.2",
    "onnxruntime-arm64": Path(sys.prefix) / "onnxruntime-aarch64",
}
"""Other releases of ONNX Runtime, which `make onnxruntimes` puts beside the installed one."""


@functools.cache
def tools() -> dict[str, list[tuple[str, str]]]:
    """Returns package and witness of each line of the table, by tool."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            tool, package, witness, *_ = line.split()
            found.setdefault(tool, []).append((package, witness))
    return found


def is_there(witness: str) -> bool:
    """Tells whether a program, a file or a module of Python is installed."""
    if witness.startswith("/"):
        return Path(witness).exists()
    if witness.startswith("python:"):
        return importlib.util.find_spec(witness.removeprefix("python:")) is not None
    return shutil.which(witness, path=os.environ.get("PATH", os.defpath) + _SBIN) is not None


@functools.cache
def reason_to_skip(tool: str) -> str:
    """Returns why tests that need ``tool`` cannot run here, or an empty string.

    Raises:
        ValueError: If no table knows the tool.
    """
    if tool in _MADE:
        return "" if _MADE[tool].is_dir() else f"needs {tool}, which `make onnxruntimes` installs"
    if tool not in tools():
        raise ValueError(f"no tool {tool!r}: {TABLE} lists {', '.join(tools())}; here are {', '.join(_MADE)}")
    missing = [package for package, witness in tools()[tool] if not is_there(witness)]
    return f"needs {tool}, which `make tools` installs ({' '.join(missing)})" if missing else ""


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """Returns ``needs(tool, ...)``, which skips the test that asks where one of the tools is missing."""

    def check(*names: str) -> None:
        for name in names:
            if reason := reason_to_skip(name):
                pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def needs_core(needs: Callable[..., None]) -> Callable[[str], None]:
    """Returns ``needs_core(target)``, which skips the test where neither this machine nor an emulator runs its code."""

    def check(name: str) -> None:
        from edgeq.targets.builtin.target import load_target
        from edgeq.targets.runtime.machine import this_machine

        target, machine = load_target(name), this_machine()
        if target.runs_on(machine):
            return
        emulators = {"aarch64": "arm64-emulator", "armv7": "armhf-emulator", "riscv64": "riscv64-emulator"}
        if target.emulator is None or target.architecture not in emulators:
            lacking = ", ".join(machine.lacks(target.cpu_flags)) or f"another architecture than {target.architecture}"
            pytest.skip(f"needs a processor like {name}: this one lacks {lacking}, and no emulator has it")
        needs(emulators[target.architecture])

    return check


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked with ``needs`` where a tool is missing."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if reason := reason_to_skip(name):
                pytest.skip(reason)


def skipped_lines(reasons: Counter[str]) -> list[str]:
    """Returns what the run's last lines say about the tests that were skipped."""
    if not reasons:
        return []
    lines = ["1 test was skipped:" if reasons.total() == 1 else f"{reasons.total()} tests were skipped:"]
    lines += [f"{count:6} {reason}" for reason, count in reasons.most_common()]
    known = ("make tools", "make onnxruntimes")
    commands = [command for command in known if any(f"`{command}`" in reason for reason in reasons)]
    if commands:
        lines.append(f"To run them too: {' and '.join(commands)}, then make test again.")
    return lines


_reasons: Counter[str] = Counter()


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Counts a file that is skipped as a whole, as pytest does: as one test."""
    _count(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts the reasons, in the process that hears of every test."""
    _count(report)


def _count(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        _reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Prints the last lines, after pytest's own summary."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        for line in skipped_lines(_reasons):
            terminal.write_line(line)
