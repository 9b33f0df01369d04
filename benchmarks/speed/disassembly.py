"""Which instructions compiled code really has, read from its disassembly."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_AVX512 = re.compile(r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])\b|%k[0-7]\b|\{1to\d+\}")
"""512-bit registers, registers 16 to 31, masks, and memory operands that are spread: none exists without AVX-512."""


def avx512_instructions(library: Path) -> int | None:
    """Counts the instructions of a shared library that only AVX-512 has; None if ``objdump`` is not installed."""
    try:
        command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return None
    return count_avx512(listing)


def count_avx512(listing: str) -> int:
    """Counts the lines of a listing in AT&T syntax that hold such an instruction."""
    return sum(bool(_AVX512.search(line)) for line in listing.splitlines())
