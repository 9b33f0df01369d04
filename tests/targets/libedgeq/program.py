"""``edgeq-run`` under sanitizers, as several tests start it."""

import subprocess

from edgeq.targets.runtime.machine import this_machine

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
"""A target of this machine whose bundles do not depend on its processor."""


def run_program(program, *arguments):
    """Runs a program that sanitizers watch; nothing may be wrong with its memory, and it may not crash."""
    # The process exits without freeing; leaks are not what is looked for.
    result = subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    assert "Sanitizer" not in result.stderr, result.stderr
    assert "runtime error" not in result.stderr, result.stderr
    assert result.returncode in (0, 1, 2), result
    return result
