"""The benchmark of ARM processors: what the plugin writes, classes of instructions, and the table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.arm.counting import class_of, difference, parse_counts
from benchmarks.arm.reference import cosine
from benchmarks.arm.table import lines_of
from edgeq.targets.devices.estimate.machine_code import Instruction, parse_disassembly


def test_blocks_of_the_same_bytes_are_one() -> None:
    """Wherever a library lies in memory, its blocks are found again by their bytes."""
    counts = parse_counts("4000 2 3 0100008b,c0035fd6\n7000 2 4 0100008b,c0035fd6\n8000 1 5 c0035fd6\n")
    assert counts == {("0100008b", "c0035fd6"): 7, ("c0035fd6",): 5}


def test_difference_keeps_negative_counts() -> None:
    assert difference({("a",): 3, ("b",): 2}, {("a",): 1, ("b",): 2, ("c",): 4}) == {("a",): 2, ("c",): -4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sdot v0.4s, v1.16b, v2.4b[0]", "vector"),
        ("fmadd s0, s1, s2, s3", "vector"),
        ("ldr q0, [x1], #0x10", "load"),
        ("ld1 { v0.16b }, [x1]", "load"),
        ("stp x29, x30, [sp, #-0x10]!", "store"),
        ("add x0, x1, x2", "other"),
        ("b.ne 0x4", "branch"),
        ("bl 0x4", "branch"),
        ("ret", "branch"),
    ],
)
def test_class_of_an_instruction(text: str, expected: str) -> None:
    (one,) = parse_disassembly(f"       0: {text}\n").instructions
    assert class_of(one) == expected
    assert isinstance(one, Instruction)


def _row(setup: str, instructions: int, cycles: int) -> dict[str, object]:
    counts = {"vector": instructions, "load": 0, "store": 0, "branch": 0, "other": 0}
    return {"work": "w", "core": "c", "setup": setup, "instructions": counts, "cycles": cycles, "cosine": 1.0}


def test_table_compares_with_the_best_peer_of_each_figure() -> None:
    missing = {"work": "w", "core": "c", "setup": "C", "missing": "no | library"}
    rows = [_row("edgeq x", 6, 8), _row("A", 10, 40), _row("B", 20, 10), missing]
    own = next(line for line in lines_of(rows) if "edgeq x" in line)
    assert own.endswith("| 0.60 | 0.80 | missed |")
    met = [_row("edgeq x", 6, 7), *rows[1:]]
    assert next(line for line in lines_of(met) if "edgeq x" in line).endswith("| 0.60 | 0.70 | met |")
    assert any("no / library" in line for line in lines_of(rows))


def test_cells_are_compared_with_their_own_peers() -> None:
    other = _row("A", 1, 1) | {"core": "d"}
    own = next(line for line in lines_of([_row("edgeq x", 6, 8), _row("A", 10, 40), other]) if "edgeq x" in line)
    assert "| 0.60 | 0.20 |" in own


def test_outputs_of_another_size_are_not_alike() -> None:
    assert cosine(np.ones((1, 2, 3), np.float32), np.ones((2, 3), np.float32)) == pytest.approx(1.0)
    assert cosine(np.ones(3, np.float32), np.ones(4, np.float32)) == -1.0
