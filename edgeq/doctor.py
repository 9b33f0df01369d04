"""What is missing on this machine, and the command that brings it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Sequence

from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import Target, list_targets, load_target
from edgeq.targets.devices.emulator import install_command as emulator_install_command
from edgeq.targets.devices.emulator import is_emulator_ready
from edgeq.targets.devices.estimate.emulation import emulator_command
from edgeq.targets.devices.estimate.tools import find_llvm
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.linkers import find_linker, install_command

# Import name -> distribution; what each is for stands in pyproject.toml.
_PACKAGES = {
    "numpy": "numpy",
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "tokenizers": "tokenizers",
    "onnx": "onnx",
    "torch": "torch",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: What was looked for.
        ok: True if it is there.
        detail: What was found, or what is missing and what for.
        fix_command: A shell command that brings it, or an empty string.
    """

    name: str
    ok: bool
    detail: str
    fix_command: str = ""


def diagnose(targets: Sequence[str] | None = None) -> list[Finding]:
    """Looks for everything that compiling for the targets and running their bundles needs here.

    Args:
        targets: Names of targets or ``.toml`` files; None looks at all built-in ones.

    Raises:
        UsageError: If a target is unknown.
        FormatError: If a target file is damaged.
    """
    names = [summary.name for summary in list_targets()] if targets is None else targets
    findings = [_machine(), *(_package(module, name) for module, name in _PACKAGES.items())]
    if importlib.util.find_spec("onnxruntime") is not None:
        findings.append(stock_flavour(importlib.metadata.version("onnxruntime")))
    findings += [_estimates(), _devices()]
    for name in names:
        findings += target_findings(name)
    return findings


def _machine() -> Finding:
    machine = this_machine()
    try:
        host = load_target("host")
    except EdgeqError as error:
        return Finding("processor", False, str(error))
    return Finding("processor", True, f"{machine.model} ({machine.architecture}), kernels for {host.isa}")


def _package(module: str, distribution: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(
            f"package {distribution}", False, "not installed", fix_command="pip install 'edgeq[all]'"
        )
    return Finding(f"package {distribution}", True, importlib.metadata.version(distribution))


def _estimates() -> Finding:
    """Only `edgeq estimate` needs these programs, so doing without them is no fault."""
    try:
        counting = emulator_command(load_target("cortex-a76"))[0]
        return Finding("edgeq estimate", True, f"{find_llvm().version}, {counting}")
    except EdgeqError as error:
        return Finding("edgeq estimate", True, f"not possible here: {error}")


def _devices() -> Finding:
    program = shutil.which("ssh")
    detail = program or "not possible here: there is no ssh (apt-get install openssh-client)"
    return Finding("edgeq profile --on", True, detail)


def stock_flavour(version: str) -> Finding:
    """Says what a release of ONNX Runtime does with models of ``edgeq export --flavour stock``.

    Before 1.23 it has no packed tables and no matmul with 8-bit weights; 1.23 refuses 2-bit weights, and 1.24 to
    1.27 take them but unpack them to floats at every call, a hundred times slower. Everything else runs with each of
    them, so an older release is no fault.

    Args:
        version: Such as ``1.31.1``.
    """
    title, newer = "onnxruntime for --flavour stock", "; pip install 'onnxruntime>=1.28' for all of them"
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if release >= (1, 28):
        return Finding(title, True, f"{version} runs 2-, 4- and 8-bit weights fast")
    if release >= (1, 24):
        return Finding(title, True, f"{version} runs 4- and 8-bit weights fast, 2-bit weights very slowly{newer}")
    if release >= (1, 23):
        return Finding(title, True, f"{version} runs 4- and 8-bit weights fast, and refuses 2-bit weights{newer}")
    return Finding(title, True, f"{version} refuses packed tables and weights of 2 and 8 bits{newer}")


def target_findings(name: str) -> list[Finding]:
    """Looks for what compiling for one target and running its bundles needs here.

    Args:
        name: A target's name or its ``.toml`` file.

    Raises:
        UsageError: If the target is unknown.
        FormatError: If its file is damaged.
    """
    try:
        target = load_target(name)
    except EdgeqError as error:
        if name == "host":  # said by the finding about the processor
            return []
        raise error
    findings = [_compiler(target)]
    if not target.is_host:
        findings.append(_runner(target))
    return findings


def _compiler(target: Target) -> Finding:
    title = f"{target.name}: C compiler"
    try:
        return Finding(title, True, find_linker(target).version)
    except EdgeqError:
        fix = install_command(target).split("`")[0]
        return Finding(title, False, f"none for {target.architecture}; it links kernels, libedgeq and edgeq-run", fix)


def _runner(target: Target) -> Finding:
    title = f"{target.name}: running bundles here"
    emulator = target.emulator
    if emulator is not None and is_emulator_ready(target):
        return Finding(title, True, " ".join((emulator.program, *emulator.arguments)))
    if not target.loads_code:
        return Finding(title, True, f"not possible ({target.system}); compile with --form sources, and build there")
    if target.runs_on(this_machine()):
        return Finding(title, True, "on this processor")
    if emulator is None:
        lacking = ", ".join(this_machine().lacks(target.cpu_flags)) or "another architecture"
        return Finding(title, True, f"not possible ({lacking}); bundles compile, and are proven on the board")
    return Finding(
        title,
        False,
        f"the emulator {emulator.program} or the C library below {emulator.sysroot} is missing",
        emulator_install_command(emulator),
    )
