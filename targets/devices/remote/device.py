"""What a device is: read from ``/proc`` and ``/sys`` there, whatever of it can be read."""

from __future__ import annotations

import collections
import dataclasses
import re

from edgeq.errors import UnsupportedError
from edgeq.targets.devices.remote.connection import Connection
from edgeq.targets.runtime.machine import Machine, machine_from_cpuinfo, normalised_architecture
from edgeq.targets.runtime.schema import TargetInfo

_CPUINFO = "/proc/cpuinfo"
_BOARD = "/proc/device-tree/model"
_GOVERNORS = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_SPEEDS = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"
_TEMPERATURES = "/sys/class/thermal/thermal_zone*/temp"
_FILES = " ".join((_CPUINFO, _BOARD, "/proc/loadavg", _GOVERNORS, _SPEEDS, _TEMPERATURES))
_MARK = "==edgeq== "

# The Linux kernel prints numbers for ARM cores (arch/arm64/include/asm/cputype.h has their names).
_ARM_CORES = {
    0xC05: "Cortex-A5",
    0xC07: "Cortex-A7",
    0xC0E: "Cortex-A17",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD49: "Neoverse-N2",
}
_ARM_IMPLEMENTER = 0x41


@dataclasses.dataclass(frozen=True)
class Device:
    """A device at one moment.

    Attributes:
        machine: Architecture, instruction sets and the processor's name.
        board: What the device calls itself, or an empty string.
        cores: Processors that are on.
        governors: What chooses the clock, each once; empty where it cannot be read.
        megahertz: Fastest clock of any core just now, or None.
        celsius: Hottest sensor, or None where none can be read.
        load: Load averages as ``/proc/loadavg`` gives them.
        system: Name and release of the kernel.
    """

    machine: Machine
    board: str
    cores: int
    governors: tuple[str, ...]
    megahertz: float | None
    celsius: float | None
    load: str
    system: str


def read_device(connection: Connection) -> Device:
    """Asks a device what it is.

    Raises:
        EdgeqError: If it cannot be reached.
    """
    script = f'for file in {_FILES}; do [ -r "$file" ] && echo "{_MARK}$file" && cat "$file" 2>&- && echo; done; '
    return device_from_answer(connection.run(f"{script} echo '{_MARK}uname'; uname -srm", doing="looking what it is"))


def device_from_answer(text: str) -> Device:
    """Reads the answer: for each file a line with a mark and its path, then what it holds; last ``uname -srm``."""
    parts: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        path, _, content = part.partition("\n")
        parts[path.strip()] = content.strip(" \n\0")
    system, _, architecture = parts.get("uname", "").rpartition(" ")
    cpuinfo = parts.get(_CPUINFO, "")
    machine = machine_from_cpuinfo(cpuinfo, normalised_architecture(architecture))
    cores = len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))
    speeds, sensors = _numbers(parts, "scaling_cur_freq"), _numbers(parts, "temp")
    return Device(
        machine=machine._replace(model=_arm_cores(cpuinfo) or machine.model),
        board=parts.get(_BOARD, ""),
        cores=cores,
        governors=tuple(sorted({value for path, value in parts.items() if path.endswith("scaling_governor")})),
        megahertz=max(speeds) / 1e3 if speeds else None,
        celsius=max(sensors) / 1e3 if sensors else None,
        load=" ".join(parts.get("/proc/loadavg", "").split()[:3]),
        system=system,
    )


def check_device(device: Device, target: TargetInfo, *, place: str) -> None:
    """Refuses a device that is not what the bundle was compiled for.

    Args:
        device: The device.
        target: What the bundle is for.
        place: The device's address, for the message.

    Raises:
        UnsupportedError: If it is another architecture or lacks instructions.
    """
    machine = device.machine
    if machine.architecture != target.architecture:
        raise UnsupportedError(
            f"the bundle is for {target.name} ({target.architecture}), but {place} is {machine.architecture} "
            f"({machine.model}); compile it for that"
        )
    # Without a list of instruction sets there is nothing to compare; edgeq-run looks for itself.
    missing = machine.lacks(target.cpu_flags) if machine.flags else []
    if missing:
        raise UnsupportedError(
            f"the bundle is for {target.name}, which has {', '.join(missing)}; {place} ({machine.model}) lacks them; "
            "compile it for another target (`edgeq targets` lists them)"
        )


def _numbers(parts: dict[str, str], name: str) -> list[int]:
    """Values of all files of a name; drivers of sensors that are asleep give no number."""
    values = [value for path, value in parts.items() if path.endswith(f"/{name}")]
    return [int(value) for value in values if re.fullmatch(r"-?\d+", value)]


def _arm_cores(cpuinfo: str) -> str:
    """Names of ARM cores with their numbers, such as ``4x Cortex-A53 + 2x Cortex-A72``; empty for others."""
    implementers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    kinds = re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    if not kinds or len(kinds) != len(implementers):
        return ""
    names = collections.Counter(
        _ARM_CORES.get(int(kind, 16), f"ARM core {kind}")
        if int(maker, 16) == _ARM_IMPLEMENTER
        else f"core {kind} of implementer {maker}"
        for maker, kind in zip(implementers, kinds, strict=True)
    )
    return " + ".join(f"{count}x {name}" for name, count in names.items())
