"""Cycles of a block of instructions: llvm-mca's model of a processor."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.devices.estimate import arm32
from edgeq.targets.devices.estimate.machine_code import Block, Instruction

ITERATIONS = 100
"""A block is modelled as often as this in a row, so that filling the pipeline does not count."""
_TIMEOUT_S = 600


def cycles_of_blocks(
    blocks: Sequence[Block], *, program: str, triple: str, cpu: str, folder: Path
) -> list[float]:
    """Returns the cycles that each block takes in a loop of nothing else.

    That is the truth for the inner loops, where the time goes, and for the rest assumes that neighbours overlap as
    well as a block with itself. Caches always hit, branches are always foreseen, and calls cost nothing.

    Args:
        blocks: The blocks.
        program: ``llvm-mca``.
        triple: LLVM's name of the platform.
        cpu: LLVM's name of the processor.
        folder: Where a file may be written.

    Raises:
        EdgeqError: If the program fails, such as for a processor that it has no model of.
    """
    if not blocks:
        return []
    source = folder / "blocks.s"
    bits32 = arm32.is_arm32(triple)
    regions = [_region(block, index, bits32=bits32) for index, block in enumerate(blocks)]
    source.write_text("".join(regions), encoding="utf-8")
    command = [program, f"--mtriple={triple}", f"--mcpu={cpu}", f"--iterations={ITERATIONS}", "--json"]
    if bits32:
        command += arm32.MODEL_OPTIONS
    command += ["--instruction-info=0", "--resource-pressure=0", str(source)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeqError(f"{program} did not run: {error}") from error
    if result.returncode != 0:
        reason = next((line for line in result.stderr.splitlines() if "error" in line), "no reason given")
        raise EdgeqError(f"{program} has no answer for {cpu}: {reason}")
    return _cycles(result.stdout, len(blocks), program=program)


def _region(block: Block, index: int, *, bits32: bool) -> str:
    # A call is modelled as a hundred cycles, which is a guess about what it calls; that is counted where it runs.
    texts = [(one, _text(one, index)) for one in block.instructions if not one.is_call]
    kept = [(one, text) for one, text in texts if not _leaves(text)]
    lines = [line for one, text in kept for line in (arm32.for_the_model(one, text) if bits32 else [text])]
    mode = (".thumb\n" if block.instructions[0].thumb else ".arm\n") if bits32 else ""
    # An empty region is left out of the answer.
    body = "\n".join(lines) or "nop"
    return f"{mode}.Lblock{index}:\n# LLVM-MCA-BEGIN {index}\n{body}\n# LLVM-MCA-END\n"


def _text(one: Instruction, index: int) -> str:
    """A branch goes to the block's start: as a number, its target may be too far away for the assembler."""
    return one.text if one.target is None else re.sub(r"0x[0-9a-f]+$", f".Lblock{index}", one.text)


def _leaves(text: str) -> bool:
    """Returns and indirect jumps, which the model cannot follow either."""
    return re.match(r"(ret|br\b|jmpq? \*|bx|mov\S* pc,|ldr\S* pc,|add\S* pc,)", text) is not None


def _cycles(output: str, count: int, *, program: str) -> list[float]:
    try:
        regions = json.loads(output)["CodeRegions"]
        cycles = [region["SummaryView"]["TotalCycles"] / region["SummaryView"]["Iterations"] for region in regions]
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeqError(f"{program} answered in a way not known here ({error}); try another version") from error
    if len(cycles) != count:
        raise EdgeqError(f"{program} answered for {len(cycles)} of {count} blocks; try another version")
    return cycles
