"""Counts the instructions of one call, edgeq's and the peers', on ARM cores that are emulated.

python -m benchmarks.arm.prepare TOOLS --models MODELS     what is needed, once
python -m benchmarks.arm TOOLS --models MODELS             every cell; --work, --core and --setup choose some
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.arm.counting import cost_of, count_program, difference
from benchmarks.arm.programs import CORES, PEERS, WORKS, Program, Work, own_program, peer_program, processor
from benchmarks.arm.reference import cosine, reference_of
from benchmarks.arm.table import write_tables
from benchmarks.machine import facts
from benchmarks.speed.prepare import bundle_folder
from benchmarks.speed.setups import LEAST_SIMILARITY, own_name
from edgeq.errors import EdgeqError
from edgeq.files import write_text
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices.estimate.emulation import version_of
from edgeq.targets.devices.estimate.tools import find_llvm

RESULTS = Path(__file__).parent / "results.json"
_EMULATOR = "qemu-aarch64"


def main() -> int:
    """Counts the cells that are asked for, and writes each as soon as it is there."""
    options = _options()
    for work in WORKS:
        for core in CORES:
            if options.work in work.name and core in (options.core or CORES):
                _count_cell(work, core, options)
    write_tables()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tools", type=Path, help="what benchmarks.arm.prepare made")
    parser.add_argument("--models", type=Path, default=Path("bench-output/models"), help="of benchmarks.speed")
    parser.add_argument("--work", default="", help="only works whose name has this")
    parser.add_argument("--core", action="append", choices=list(CORES), help="repeatable; default: all")
    parser.add_argument("--setup", default="", help="only setups whose name has this")
    parser.add_argument("--missing", action="store_true", help="only cells that have no counts yet")
    return parser.parse_args()


def _count_cell(work: Work, core: str, options: argparse.Namespace) -> None:
    for recipe in work.recipes:
        bundle = bundle_folder(work.model, recipe, target=core, root=options.models).absolute()
        make = functools.partial(own_program, bundle, recipe, work)
        _count(work, core, own_name(recipe), make=make, options=options)
    for peer in PEERS:
        make = functools.partial(
            peer_program, peer, work, models=options.models, tools=options.tools, core=core
        )
        _count(work, core, peer.name, make=make, options=options)


def _count(work: Work, core: str, name: str, *, make: Any, options: argparse.Namespace) -> None:
    """Counts one setup and keeps its row; what cannot be counted says why."""
    if options.setup not in name or (options.missing and _has_counts(work, core, name)):
        return
    row: dict[str, Any] = {"work": work.name, "core": core, "setup": name}
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-") as scratch:
        try:
            row |= _row(work, core, make(scratch=Path(scratch)), options=options)
        except EdgeqError as error:
            row |= {"missing": str(error)}
    row["machine"] = facts()
    _keep(row)
    print(work.name, core, name, row.get("missing") or sum(row["instructions"].values()), flush=True)


def _row(work: Work, core: str, program: Program, *, options: argparse.Namespace) -> dict[str, Any]:
    target, llvm = load_target(core), find_llvm()
    if target.estimate is None:
        raise EdgeqError(f"target {core} has no [estimate] table, which names LLVM's model of it")
    command = [_EMULATOR, *processor(target), "-L", str((options.tools / "sysroot").absolute())]
    marked = len(program.commands) == 1
    counts = [count_program(command, one, environment=program.environment, marked=marked) for one in program.commands]
    version, output = program.answer()
    alike = cosine(output, reference_of(work, models=options.models))
    if alike < LEAST_SIMILARITY.get(program.bits, -1.0):
        raise EdgeqError(f"computes something else: cosine with PyTorch's float32 {alike:.4f}")
    executed = counts[0] if marked else difference(counts[1], counts[0])
    cost = cost_of(executed, llvm, target=target, model=target.estimate.model)
    return {
        "version": version, "cosine": round(alike, 4), "instructions": cost.instructions, "cycles": round(cost.cycles),
        "modelled": round(cost.modelled, 4),
        "blocks": [{"share": round(share, 4), "text": list(text)} for share, text in cost.blocks],
        "processor": " ".join(processor(target)), "emulator": version_of(_EMULATOR), "llvm": llvm.version,
    }  # fmt: skip


def _rows() -> list[dict[str, Any]]:
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]) if RESULTS.is_file() else []


def _is(row: dict[str, Any], work: str, core: str, setup: str) -> bool:
    return (row["work"], row["core"], row["setup"]) == (work, core, setup)


def _has_counts(work: Work, core: str, name: str) -> bool:
    return any(_is(row, work.name, core, name) and "missing" not in row for row in _rows())


def _keep(row: dict[str, Any]) -> None:
    """Puts a row into the file in place of an older one of the same cell."""
    rows = [old for old in _rows() if not _is(old, row["work"], row["core"], row["setup"])]
    write_text(RESULTS, json.dumps({"kind": "executed instructions, emulated", "rows": [*rows, row]}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
