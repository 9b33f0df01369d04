"""A library's machine code, read with LLVM's disassembler."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import Target
from edgeq.targets.devices.estimate import arm32
from edgeq.targets.devices.estimate.machine_code import MachineCode, parse_disassembly

_TIMEOUT_S = 300


def disassemble(library: Path, *, program: str, target: Target) -> MachineCode:
    """Reads a library.

    Args:
        library: A bundle's code file.
        program: ``llvm-objdump``.
        target: The processor, whose name in LLVM says which instructions have names.

    Raises:
        EdgeqError: If the disassembler fails.
        FormatError: If the library is damaged.
        UnsupportedError: If its kernels are Thumb code.
    """
    if target.architecture != arm32.ARCHITECTURE:
        return parse_disassembly(_listing(library, program=program, options=[f"--mcpu={target.cpu}"]))

    def listing(instruction_set: str, start: int) -> str:
        triple = f"--triple={instruction_set}-{target.triple.partition('-')[2]}"
        options = [triple, f"--mcpu={target.cpu}", f"--start-address={start:#x}"]
        return _listing(library, program=program, options=options)

    return arm32.disassemble_arm32(library, listing=listing)


def _listing(library: Path, *, program: str, options: list[str]) -> str:
    command = [program, "--disassemble", "--no-show-raw-insn", *options, str(library)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeqError(f"{program} cannot read {library}: {error}") from error
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EdgeqError(f"{program} cannot read {library}: {reason}")
    return result.stdout
