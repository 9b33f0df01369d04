"""Executed instructions of any AArch64 program: its blocks are known by their bytes, whatever library they lie in."""

from __future__ import annotations

import collections
import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import Target
from edgeq.targets.devices.estimate.disassembler import disassemble
from edgeq.targets.devices.estimate.emulation import build_counter, version_of
from edgeq.targets.devices.estimate.estimator import modelled_cycles
from edgeq.targets.devices.estimate.machine_code import Block, Instruction
from edgeq.targets.devices.estimate.tools import LlvmTools

CLASSES = ("vector", "load", "store", "branch", "other")
_TIMEOUT_S = 3000
_NO_MODEL = re.compile(
    r"(svc|mrs|msr|dc|ic|dmb|dsb|isb|hint|bti|paci?|auti?|xpac|yield|prfm|ldapu?r|cas|swp|ld(add|clr|eor|set|[su]max|[su]min))"
)
"""Instructions of the system and atomic ones, of which LLVM's models know nothing; they are counted all the same."""

Words = tuple[str, ...]
"""A block: the bytes of each instruction in hexadecimal digits."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a piece of a program costs: instructions were counted in an emulator, cycles are an estimate.

    Attributes:
        instructions: Executed, by class.
        cycles: Estimated, with all data in the nearest cache.
        modelled: Share of the instructions that the pipeline's model saw; the others got their average.
        blocks: The most executed ones: share of the instructions, and their text.
    """

    instructions: dict[str, int]
    cycles: float
    modelled: float
    blocks: tuple[tuple[float, tuple[str, ...]], ...]


def count_program(
    command: Sequence[str], program: Sequence[str], *, environment: Mapping[str, str], marked: bool = False
) -> dict[Words, int]:
    """Runs a program in the emulator and returns how often each block ran.

    Args:
        command: The emulator and its arguments.
        program: The program and its arguments.
        environment: Its variables.
        marked: Count only between the two marks that the program makes (``calls.py``).

    Raises:
        EdgeqError: If it fails, or made no marks.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-count-") as temporary:
        plugin, out = Path(temporary) / "counter.so", Path(temporary) / "counts"
        build_counter(version_of(command[0]), plugin)
        marks = ",marked=on" if marked else ""
        words = [*command, "-plugin", f"{plugin},out={out},words=on{marks}", *program]
        try:
            result = subprocess.run(
                words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=dict(environment)
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeqError(f"{command[0]} could not run {Path(program[0]).name}: {error}") from error
        if result.returncode != 0 or not out.is_file():
            reason = (result.stderr.strip().splitlines() or [f"it ended with code {result.returncode}"])[-1]
            raise EdgeqError(f"{Path(program[0]).name} failed under {command[0]}: {reason}")
        return parse_counts(out.read_text(encoding="ascii"))


def parse_counts(text: str) -> dict[Words, int]:
    """Reads what the plugin wrote with ``words=on``; blocks of the same bytes are one."""
    counts: collections.Counter[Words] = collections.Counter()
    for line in text.splitlines():
        _, _, times, words = line.split()
        counts[tuple(words.split(","))] += int(times)
    return dict(counts)


def difference(more: Mapping[Words, int], less: Mapping[Words, int]) -> dict[Words, int]:
    """Returns what ran in one program and not in the other.

    A block that ran more often in the second keeps its negative count, so that what a program does at start in another
    order cancels out.
    """
    counts = {words: more.get(words, 0) - less.get(words, 0) for words in {*more, *less}}
    return {words: count for words, count in counts.items() if count}


def cost_of(counts: Mapping[Words, int], llvm: LlvmTools, *, target: Target, model: str, shown: int = 3) -> Cost:
    """Returns instructions by class and estimated cycles.

    Args:
        counts: Executions of each block.
        llvm: The disassembler and the model.
        target: The core.
        model: LLVM's name of the model of its pipeline.
        shown: So many of the most executed blocks are kept.

    Raises:
        EdgeqError: If a program of LLVM fails.
    """
    known = _instructions({word for words in counts for word in words}, llvm, target=target)
    by_class: collections.Counter[str] = collections.Counter()
    for words, count in counts.items():
        for word in words:
            by_class[class_of(known[word]) if word in known else "other"] += count
    modellable = {word: one for word, one in known.items() if not _NO_MODEL.match(one.text)}
    blocks = [
        Block(tuple(modellable[word] for word in words if word in modellable), count, "")
        for words, count in counts.items()
    ]
    blocks = [block for block in blocks if block.executions > 0 and block.instructions]
    cycles = modelled_cycles(blocks, program=llvm.mca, triple=target.triple, cpu=model)
    seen = [block for block in blocks if id(block) in cycles]
    whole, modelled = sum(by_class.values()), sum(block.executed for block in seen)
    average = sum(cycles[id(block)] * block.executions for block in seen) / max(modelled, 1)
    most = sorted(seen, key=lambda block: -block.executed)[:shown]
    profile = tuple((block.executed / whole, tuple(one.text for one in block.instructions)) for block in most)
    return Cost({name: by_class[name] for name in CLASSES}, average * whole, modelled / max(whole, 1), profile)


def class_of(one: Instruction) -> str:
    """Returns the class of an AArch64 instruction; arithmetic of single floating point numbers counts as vector."""
    name, _, operands = one.text.partition(" ")
    if name.startswith(("ld", "prfm")):
        return "load"
    if name.startswith("st"):
        return "store"
    if one.ends_block or one.is_call:
        return "branch"
    return "vector" if re.search(r"\b[vqdshbzp]\d+\b", operands) else "other"


def _instructions(words: Iterable[str], llvm: LlvmTools, *, target: Target) -> dict[str, Instruction]:
    """Disassembles words, each as an instruction at an address of its own; those that are none are left out."""
    order = sorted(words)
    with tempfile.TemporaryDirectory(prefix="edgeq-words-") as temporary:
        source, made = Path(temporary) / "words.s", Path(temporary) / "words.o"
        numbers = (int.from_bytes(bytes.fromhex(word), "little") for word in order)
        source.write_text("".join(f".inst {number:#010x}\n" for number in numbers), encoding="ascii")
        command = [llvm.mca.replace("llvm-mca", "llvm-mc"), f"--triple={target.triple}", "--filetype=obj"]
        command += ["-o", str(made), str(source)]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise EdgeqError(f"{command[0]} cannot assemble words: {error}") from error
        code = disassemble(made, program=llvm.objdump, target=target)
    size = 4
    return {order[one.address // size]: _as_call(one) for one in code.instructions}


def _as_call(one: Instruction) -> Instruction:
    """A call through a register costs what it calls, which is counted where it runs."""
    return dataclasses.replace(one, is_call=True) if one.text.startswith("blr") else one
