"""The machine code of a linked model: which instructions there are, and which kernel each belongs to."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Iterable, Mapping

KERNEL_PREFIX = "__tvm_ffi_"
"""What TVM puts before a kernel's name to make the symbol of its function."""
_SHARED = "(shared by kernels)"

LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)(?:\s+(.*))?$")
_SYMBOL = re.compile(r"([0-9a-f]+) <(.+)>:$")
_CALLS = ("bl", "call", "callq")
_JUMPS = ("b", "jmp", "jmpq", "br", "ret", "retq", "udf", "brk", "ud2", "hlt")
_BRANCHES = re.compile(r"(b\.[a-z]+|cbn?z|tbn?z|j[a-z]+)$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        address: Where it lies in the library's memory.
        text: It in assembler, as the assembler takes it.
        goes_on: Whether the next one may follow.
        ends_block: Whether something else may follow: branches, jumps and returns.
        target: Where a direct branch, jump or call leads, or None.
        is_call: Whether it is a call.
        refers: Address of code or data that it computes, or None.
        size: Its bytes, which are known for 32-bit ARM only; elsewhere the next one follows whatever they are.
        thumb: Whether it is one of Thumb code, which only 32-bit ARM has.
    """

    address: int
    text: str
    goes_on: bool = True
    ends_block: bool = False
    target: int | None = None
    is_call: bool = False
    refers: int | None = None
    size: int = 0
    thumb: bool = False


@dataclasses.dataclass(frozen=True)
class Block:
    """Instructions that run one after the other, as often as each other.

    Attributes:
        instructions: In order, at least one.
        executions: How often.
        kernel: Name of the kernel whose code it is.
    """

    instructions: tuple[Instruction, ...]
    executions: int
    kernel: str

    @property
    def executed(self) -> int:
        """Instructions executed in all."""
        return len(self.instructions) * self.executions


class MachineCode:
    """All instructions of a library, in order of their addresses."""

    def __init__(self, instructions: Iterable[Instruction], symbols: Mapping[str, int]) -> None:
        self.instructions = sorted(instructions, key=lambda one: one.address)
        self._addresses = [one.address for one in self.instructions]
        self._starts = {symbol.removeprefix(KERNEL_PREFIX): address for symbol, address in symbols.items()
                        if symbol.startswith(KERNEL_PREFIX)}  # fmt: skip
        self._owners = self._find_owners()

    def index(self, address: int) -> int | None:
        """Returns the place of the instruction at an address, or None if there is none."""
        at = bisect.bisect_left(self._addresses, address)
        return at if at < len(self._addresses) and self._addresses[at] == address else None

    def _find_owners(self) -> dict[int, str]:
        """Kernel of each instruction, by place: a stripped library names the first function of a kernel only.

        The body of a parallel loop is a function of its own, whose address the kernel hands to TVM's thread pool.
        What several kernels reach belongs to none.
        """
        owners: dict[int, str] = {}
        for kernel, address in self._starts.items():
            seen: set[int] = set()
            open_places = [self.index(address)]
            while open_places:
                place = open_places.pop()
                if place is None or place in seen:
                    continue
                seen.add(place)
                owners[place] = _SHARED if owners.get(place, kernel) != kernel else kernel
                open_places += self._next(place)
        return owners

    def _next(self, place: int) -> list[int | None]:
        one = self.instructions[place]
        found: list[int | None] = [
            self.index(address) for address in (one.target, one.refers) if address is not None
        ]
        following = self.instructions[place + 1] if place + 1 < len(self.instructions) else None
        # Of 32-bit ARM only the instructions are known that can be reached, which leaves gaps.
        if one.goes_on and following is not None and one.size in (0, following.address - one.address):
            found.append(place + 1)
        return found

    def blocks(self, counts: Mapping[int, int]) -> list[Block]:
        """Cuts what was executed into blocks.

        Args:
            counts: Executions by address of an instruction; those that are missing did not run.
        """
        entries = {one.target for one in self.instructions if one.target is not None}
        blocks: list[Block] = []
        current: list[Instruction] = []
        for place, one in enumerate(self.instructions):
            count = counts.get(one.address, 0)
            owner = self._owners.get(place)
            if current and (one.address in entries or count != counts.get(current[-1].address, 0)):
                self._close(current, counts, blocks)
            if count and owner is not None:
                current.append(one)
                if one.ends_block:
                    self._close(current, counts, blocks)
            elif current:
                self._close(current, counts, blocks)
        self._close(current, counts, blocks)
        return blocks

    def _close(self, current: list[Instruction], counts: Mapping[int, int], blocks: list[Block]) -> None:
        if current:
            place = self.index(current[0].address)
            owner = self._owners[place] if place is not None else _SHARED
            blocks.append(Block(tuple(current), counts[current[0].address], owner))
            current.clear()


def parse_disassembly(text: str) -> MachineCode:
    """Reads the output of ``llvm-objdump --disassemble --no-show-raw-insn`` for x86-64 or AArch64."""
    instructions: list[Instruction] = []
    pages: dict[str, int] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and not match[2].startswith("<"):
            instructions.append(_instruction(int(match[1], 16), match[2], match[3] or "", pages))
            if instructions[-1].ends_block or instructions[-1].is_call:
                pages.clear()  # what a register holds is known in straight code only
    return MachineCode(instructions, read_symbols(text))


def read_symbols(text: str) -> dict[str, int]:
    """Returns the addresses of the symbols in a disassembly."""
    return {found[2]: int(found[1], 16) for found in map(_SYMBOL.match, text.splitlines()) if found}


def _instruction(address: int, name: str, rest: str, pages: dict[str, int]) -> Instruction:
    operands, _, comment = rest.partition("#" if "%" in rest or "(" in rest else "//")
    operands = re.sub(r"\s*<[^>]*>", "", operands).strip()
    text = f"{name} {operands}".strip()
    direct = re.search(r"(?:^|, )0x([0-9a-f]+)$", operands)
    place = int(direct[1], 16) if direct else None
    if name in _CALLS:
        return Instruction(address, text, target=place, is_call=True)
    if name in _JUMPS:
        return Instruction(address, text, goes_on=False, ends_block=True, target=place)
    if _BRANCHES.match(name):
        return Instruction(address, text, ends_block=True, target=place)
    return Instruction(address, text, refers=_reference(name, operands, comment, place, pages))


def _reference(name: str, operands: str, comment: str, place: int | None, pages: dict[str, int]) -> int | None:
    """The address that an instruction computes; on ARM it takes two, of which the first gives the page."""
    registers = [word.strip() for word in operands.split(",")]
    if name == "adrp" and place is not None:
        pages[registers[0]] = place
    elif name == "adr":
        return place
    elif name == "add" and len(registers) == 3 and registers[1] in pages and registers[2].startswith("#"):
        return pages.pop(registers[1]) + int(registers[2][1:], 0)
    elif name.startswith("lea"):
        absolute = re.search(r"0x([0-9a-f]+)", comment)
        return int(absolute[1], 16) if absolute and "(%rip)" in operands else None
    return None
