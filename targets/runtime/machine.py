"""What the machine that runs this process is: its architecture and the instruction sets it has.

The compiler's ``host`` target and the loader's check both read it, so that a bundle is refused with a
sentence instead of dying from an illegal instruction.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgeq.errors import UnsupportedError

_ALIASES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}
"""Other names that systems and packages use; ``armv8l`` is a 64-bit core that runs 32-bit programs."""


class Processor(NamedTuple):
    """What code needs: its target's name, the architecture and the instruction sets of ``/proc/cpuinfo``."""

    name: str
    architecture: str
    cpu_flags: tuple[str, ...]


_TILE_FLAGS = frozenset(("amx_tile", "amx_int8"))


class Machine(NamedTuple):
    """A processor as Linux describes it.

    Attributes:
        architecture: ``x86_64``, ``aarch64``, ``armv7`` or whatever the kernel calls it.
        flags: Instruction set names of ``/proc/cpuinfo`` (``avx2``, ``asimddp``, ...).
        model: The processor's name, for reports.
    """

    architecture: str
    flags: frozenset[str]
    model: str

    def lacks(self, flags: tuple[str, ...]) -> list[str]:
        """Returns those of ``flags`` that this processor does not have, in order."""
        return [flag for flag in flags if flag not in self.flags]


def normalised_architecture(name: str) -> str:
    """Returns one name for each architecture: ``amd64`` and ``x86_64`` are the same."""
    return _ALIASES.get(name.lower(), name.lower())


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Reads the processor of this machine: what this process may use of it, which is then ready for use.

    Args:
        cpuinfo: The kernel's description; another file only in tests.
    """
    architecture = normalised_architecture(platform.machine())
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Machine(architecture, frozenset(), "unknown")
    machine = machine_from_cpuinfo(text, architecture)
    if machine.flags & _TILE_FLAGS and not _system_gives_tiles():
        return machine._replace(flags=machine.flags - _TILE_FLAGS)
    return machine


def _system_gives_tiles() -> bool:
    """Asks Linux for the tile registers of AMX, which it saves only for processes that ask; without, code is killed.

    libedgeq asks for itself (``library/cpu.c``); kernels that TVM runs, while a model is compiled, do not.
    """
    import ctypes  # not for processors that have no tiles

    arch_prctl, ask_for_registers, tiles = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, ask_for_registers, tiles) == 0)


def machine_from_cpuinfo(text: str, architecture: str) -> Machine:
    """Parses ``/proc/cpuinfo``; only instruction sets that *every* core has are kept.

    Args:
        text: Contents of the file.
        architecture: Normalised architecture name.
    """
    per_core: list[frozenset[str]] = []
    model = "unknown"
    for line in text.splitlines():
        key, _, value = line.partition(":")
        name = key.strip().lower()
        if name in ("flags", "features"):
            per_core.append(frozenset(value.split()))
        elif name in ("model name", "hardware") and model == "unknown":
            model = value.strip()
    # Boards with big and little cores may move a thread anywhere, so the intersection is what counts.
    flags = frozenset.intersection(*per_core) if per_core else frozenset()
    return Machine(architecture, flags, model)


def check_machine(folder: Path, targets: Sequence[Processor]) -> None:
    """Raises UnsupportedError if a bundle has no code that can run in this process.

    Args:
        folder: The bundle's folder, for the message.
        targets: The processors that it has code for, best first.
    """
    machine, least = this_machine(), targets[-1]
    if machine.architecture != least.architecture:
        raise UnsupportedError(
            f"bundle {folder} is for {least.name} ({least.architecture}), this machine is "
            f"{machine.architecture}; copy the folder to the board and run ./edgeq-run there, or check it in "
            "an emulator with `edgeq verify`"
        )
    if all(machine.lacks(target.cpu_flags) for target in targets):
        raise UnsupportedError(
            f"bundle {folder} is for {least.name}, which has {', '.join(machine.lacks(least.cpu_flags))}; this machine "
            f"({machine.model}) lacks them; compile it for `host` here"
        )
