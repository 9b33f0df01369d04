"""Machine code of 32-bit ARM: in one library, kernels in ARM code and the compiler's helpers in Thumb code.

A stripped library does not say which is which, and the words of constants between functions look like instructions.
So the code is followed from the kernels, which are ARM code: direct calls say where it changes (``blx``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.devices.estimate.machine_code import KERNEL_PREFIX, LINE, Instruction, MachineCode, read_symbols

ARCHITECTURE = "armv7"
MODEL_OPTIONS = ["--mattr=+neon,+vfp4,+hwdiv,+hwdiv-arm", "--arm-implicit-it=always"]
"""For llvm-mca: what may be assembled, since models are of processors that are older than some instructions."""
_CONDITION = "(eq|ne|hs|cs|lo|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)"
_CALL = re.compile(rf"blx?{_CONDITION}?$")
_BRANCH = re.compile(rf"(b|bx|bxj){_CONDITION}?$")
_CONDITIONAL = re.compile(rf".+{_CONDITION}$")
_NEVER_BACK = ("udf", "bkpt", "tbb", "tbh")
"""What stops the program, and jumps through a table, which cannot be followed."""
_MANY = re.compile(rf"v?(push|pop|ldm|stm)(ia|ib|da|db)?{_CONDITION}?$")
_MAPPED = 1
"""ELF's type of a segment that is mapped."""


def is_arm32(triple: str) -> bool:
    """Tells whether a platform is one of 32-bit ARM."""
    return triple.partition("-")[0] == ARCHITECTURE


def disassemble_arm32(library: Path, *, listing: Callable[[str, int], str]) -> MachineCode:
    """Reads what the kernels of a library reach.

    Args:
        library: A bundle's code file.
        listing: Gives llvm-objdump's text for an instruction set (``armv7`` or ``thumbv7``) from an address on.

    Raises:
        FormatError: If the file is no 32-bit ELF file.
        UnsupportedError: If kernels are Thumb code.
    """
    words = _Words(library)
    text = listing("armv7", 0)
    symbols = read_symbols(text)
    known = {False: parse_arm32(text, word=words.at), True: dict[int, Instruction]()}
    starts = [address for symbol, address in symbols.items() if symbol.startswith(KERNEL_PREFIX)]
    if any(address not in known[False] for address in starts):
        raise UnsupportedError(
            f"no estimate of {library}: its kernels must be ARM code and are Thumb code; compile the bundle again "
            "for a target without the feature +thumb-mode"
        )
    reached: dict[int, Instruction] = {}
    listed = [int(match[1], 16) for match in map(LINE.match, text.splitlines()) if match]
    open_places = [(address, False) for address in starts]
    while open_places:
        address, thumb = open_places.pop()
        if address in reached:
            continue
        if thumb and address not in known[True] and min(listed) <= address <= max(listed):
            # A listing that begins elsewhere may take the second half of an instruction for a whole one.
            known[True] = parse_arm32(listing("thumbv7", address), word=words.at, thumb=True) | known[True]
        one = known[thumb].get(address)
        if one is not None:
            reached[address] = one
            open_places += _next(one)
    return MachineCode(reached.values(), symbols)


def _next(one: Instruction) -> list[tuple[int, bool]]:
    found = [(one.address + one.size, one.thumb)] if one.goes_on else []
    if one.target is not None:
        found.append((one.target, one.thumb != one.text.startswith("blx")))
    if one.refers is not None:
        found.append((one.refers & ~1, bool(one.refers & 1)))
    return found


class _Words:
    """Constants between the functions of a library."""

    def __init__(self, library: Path) -> None:
        self._data = library.read_bytes()
        self._segments: list[tuple[int, int, int]] = []
        if self._data[:6] != b"\x7fELF\x01\x01":
            raise FormatError(f"{library} must be a little-endian 32-bit ELF file and is not; compile the bundle again")
        try:
            (table,) = struct.unpack_from("<I", self._data, 28)
            size, count = struct.unpack_from("<HH", self._data, 42)
            for index in range(count):
                kind, offset, address, _, length = struct.unpack_from("<5I", self._data, table + index * size)
                if kind == _MAPPED:
                    self._segments.append((address, offset, length))
        except struct.error as error:
            raise FormatError(f"the program headers of {library} are cut off; compile the bundle again") from error

    def at(self, address: int) -> int | None:
        """Returns the word at an address, or None if the file has none there."""
        for start, offset, length in self._segments:
            place = offset + address - start
            if start <= address <= start + length - 4 and place + 4 <= len(self._data):
                return int(struct.unpack_from("<I", self._data, place)[0])
        return None


def parse_arm32(text: str, *, word: Callable[[int], int | None], thumb: bool = False) -> dict[int, Instruction]:
    """Reads the output of ``llvm-objdump --disassemble --no-show-raw-insn`` for 32-bit ARM.

    Args:
        text: The output.
        word: Gives the constant at an address, or None.
        thumb: Whether it is of Thumb code.

    Returns:
        The instructions by address. What is data is among them, as if it were code.
    """
    lines = [(int(match[1], 16), match[2], match[3] or "") for match in map(LINE.match, text.splitlines()) if match]
    found: dict[int, Instruction] = {}
    registers: dict[str, int] = {}
    for place, (address, name, rest) in enumerate(lines):
        if name.startswith("<"):
            continue
        operands = re.sub(r"\s*<[^>]*>", "", rest).partition("@")[0].strip()
        following = lines[place + 1][0] if place + 1 < len(lines) else address
        size = 2 if thumb and following - address == 2 else 4
        refers = _reference((address, name, operands), registers, word=word, thumb=thumb)
        found[address] = one = _instruction(address, name, operands, size=size, thumb=thumb, refers=refers)
        if one.ends_block or one.is_call:
            registers.clear()  # what a register holds is known in straight code only
    return found


def _instruction(address: int, name: str, operands: str, *, size: int, thumb: bool, refers: int | None) -> Instruction:
    plain = re.sub(r"\.[wn]$", "", name)
    text = f"{name} {operands}".strip()
    direct = re.search(r"(?:^|, )0x([0-9a-f]+)$", operands)
    target = int(direct[1], 16) if direct else None
    goes_on, ends_block, is_call = True, False, False
    if _CALL.match(plain):
        is_call = True
    elif _BRANCH.match(plain) or _writes_counter(plain, operands):
        goes_on, ends_block = _CONDITIONAL.match(plain) is not None, True
    elif plain in ("cbz", "cbnz"):
        ends_block = True
    elif plain in _NEVER_BACK:
        goes_on, ends_block, target = False, True, None
    else:
        target = None
    return Instruction(address, text, goes_on, ends_block, target, is_call, refers, size, thumb)


def _writes_counter(name: str, operands: str) -> bool:
    """Tells returns and indirect jumps: what writes the program counter, first or among several registers."""
    if _MANY.match(name):
        return name.startswith(("pop", "ldm")) and re.search(r"\bpc\s*\}", operands) is not None
    return operands.startswith("pc,") and not name.startswith(("cmp", "cmn", "tst", "teq", "str"))


def _reference(
    line: tuple[int, str, str], registers: dict[str, int], *, word: Callable[[int], int | None], thumb: bool
) -> int | None:
    """The address that instructions compute: a constant, from memory or from two halves, added to the counter."""
    address, name, operands = line
    counter = address + (4 if thumb else 8)
    parts = [part.strip() for part in operands.split(",")]
    literal = re.fullmatch(r"(\w+), \[pc, #(-?(?:0x)?[0-9a-f]+)\]", operands)
    plain = name.removesuffix(".w")
    if plain == "ldr" and literal:
        constant = word((counter & ~3) + int(literal[2], 0))
        if constant is not None:
            registers[literal[1]] = constant
        return None
    if name in ("movw", "movt") and len(parts) == 2 and re.fullmatch(r"#(0x)?[0-9a-f]+", parts[1]):
        half = int(parts[1][1:], 0)
        kept = registers.get(parts[0], 0) & 0xFFFF
        registers[parts[0]] = half if name == "movw" else half << 16 | kept
        return None
    value = registers.pop(parts[0], None) if plain == "add" and "pc" in parts[1:] else None
    if value is not None and set(parts) == {parts[0], "pc"}:
        return (counter + value) & 0xFFFFFFFF
    return None


def bytes_moved_arm32(name: str, operands: str) -> int:
    """Returns at least as many bytes as an instruction of 32-bit ARM moves; 0 if it moves none."""
    plain = re.sub(r"\..*$", "", name)
    if _MANY.match(plain):
        return sum(_width(register) for register in registers_of(operands))
    if not re.match(r"v?(ld|st)", plain) or "[" not in operands:
        return 0
    if plain.startswith("v"):
        # One lane of each register, or one element for all of its lanes: d16[1], d16[].
        lanes = "{" in operands and "[" in operands.partition("}")[0]
        return _LANE if lanes else sum(_width(register) for register in registers_of(operands.partition("[")[0]))
    return 2 * _WORD if re.match(rf"(ldrd|strd){_CONDITION}?$", plain) else _WORD


_WORD, _LANE = 4, 8


def registers_of(operands: str) -> list[str]:
    """Returns the registers of a list in braces, or else those at the front; ``d8-d10`` are three."""
    inner = re.search(r"\{([^}]*)\}", operands)
    found: list[str] = []
    for part in (inner[1] if inner else operands).split(","):
        span = re.fullmatch(r"\s*([a-z]+)(\d+)\s*-\s*[a-z]+(\d+)\s*", part)
        if span:
            found += [f"{span[1]}{number}" for number in range(int(span[2]), int(span[3]) + 1)]
        elif register := re.match(r"\s*([a-z]+\d*)", part):
            found.append(register[1])
    return found


def _width(register: str) -> int:
    return {"q": 16, "d": 8}.get(register[0], _WORD) if register[1:].isdigit() else _WORD


def for_the_model(one: Instruction, text: str) -> list[str]:
    """Returns an instruction as llvm-mca's models of 32-bit processors take it.

    They have no cycles for loads and stores of many registers: here these are one for each register. Conditions in
    Thumb code make their own prefix (``it``).

    Args:
        one: The instruction.
        text: It in assembler, with a label that is near for the target of a branch.
    """
    name, _, operands = text.partition(" ")
    many = _MANY.match(re.sub(r"(\.\w+)+$", "", name))
    if one.thumb and re.match(r"it[te]*$", name):
        return []
    if many is None:
        return [text]
    base = "sp" if many[1] in ("push", "pop") else operands.partition(",")[0].rstrip("! ")
    verb = ("v" if name.startswith("v") else "") + ("ldr" if many[1] in ("pop", "ldm") else "str")
    registers = [register for register in registers_of(operands) if register != "pc"]
    return [f"{verb} {register}, [{base}, #{4 * at}]" for at, register in enumerate(registers)]
