"""Which models Tucker suits: the part of the weights that a shared factorisation loses, beside low rank of equal size.

Before any training, of every model at hand: if the blocks of a model had factors in common, a Tucker decomposition over
all of them would lose less than a truncated SVD of each matrix with as many numbers. Writes ``decomposition.json`` and
``decomposition.md`` beside the tables::

    python -m benchmarks.claims.decomposition
    python -m benchmarks.claims.decomposition --model NAME=FOLDER    another model as well; repeatable
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.claims.measure import ZOO_TEACHER, Places, minilm
from benchmarks.claims.queue import RESULTS
from edgeq.checkpoint import load_checkpoint
from edgeq.factor.apply import factorise
from edgeq.factor.kinds import FactorSettings
from edgeq.factor.kinds.low_rank import LowRankSettings
from edgeq.factor.kinds.tucker import TuckerSettings
from edgeq.files import write_text
from edgeq.formats.stored import read_json_object
from edgeq.quant.float_layers import weight_rows

NAME = "decomposition"
SIZES = (7, 20, 48)
"""Parts of the blocks' numbers that are kept: a seventh and a 48th are the paper's."""


def screen(folder: Path) -> dict[str, Any]:
    """Decomposes a model in several ways.

    Args:
        folder: A checkpoint whose blocks are all of one width.

    Returns:
        The model's width and depth, and for each size and way its settings, numbers stored and the part of the squared
        weights that is lost.
    """
    checkpoint = load_checkpoint(folder)
    (stack,) = checkpoint.adapter.stacks
    slices = 12 * stack.depth
    whole = slices * stack.width**2
    found: dict[str, Any] = {"width": stack.width, "depth": stack.depth, "ways": []}
    for part in SIZES:
        for label, settings in _settings(whole // part, width=stack.width, slices=slices).items():
            numbers, lost = _lost(checkpoint, settings)
            found["ways"].append({"part": part, "way": label, "numbers": numbers, "lost": round(lost, 4)})
    return found


def _settings(numbers: int, *, width: int, slices: int) -> dict[str, FactorSettings]:
    """The largest factorisations of at most so many numbers: IV with a bank of half the slices, III, and low rank."""
    bank = slices // 2

    def largest(size: Any) -> int:
        return max((d for d in range(1, width + 1) if size(d) <= numbers), default=1)

    banked = largest(lambda d: bank * d * d + slices * bank + 2 * width * d)
    shared = largest(lambda d: slices * d * d + 2 * width * d)
    alone = largest(lambda d: slices * (2 * width * d + d * d))
    return {
        f"Tucker IV-{bank}-{banked}": TuckerSettings(banked, bank),
        f"Tucker III-{shared}": TuckerSettings(shared),
        f"low rank {alone} (II)": LowRankSettings(alone, sliced=True),
    }


def _lost(checkpoint: Any, settings: FactorSettings) -> tuple[int, float]:
    """Returns the numbers of the factors, biases left out, and the part of the squared weights that is lost."""
    model = copy.deepcopy(checkpoint.model)
    specs = settings.plan(model, checkpoint.adapter)
    numbers = sum(spec.parameters - (spec.rows if getattr(spec, "bias", False) else 0) for spec in specs.values())
    energies = {
        name: float(weight_rows(module).detach().double().square().sum())
        for name, module in model.named_modules()
        if name in specs
    }
    records = factorise(model, checkpoint.adapter, settings)
    total = sum(energies[record.name] for record in records)
    return numbers, sum(record.relative_error * energies[record.name] for record in records) / total


def markdown(screened: Mapping[str, Any]) -> str:
    """Returns the table of the models that were screened."""
    lines = [
        "# Which models Tucker suits",
        "",
        "Part of the squared weights of all blocks that a factorisation loses, before any training; the largest "
        "factors of at most so many numbers. Where low rank loses less, the matrices of the blocks have little in "
        "common, and a shared factorisation begins behind.",
        "",
        "| model | numbers kept | way | numbers | lost |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | 1/{way['part']} | {way['way']} | {way['numbers']} | {way['lost']:.1%} |"
        for name, one in screened.items()
        for way in one["ways"]
    ]
    lines.append("")
    lines += [
        f"- {name}, {one['depth']} blocks of width {one['width']}: {_verdict(one)}." for name, one in screened.items()
    ]
    return "\n".join([*lines, "", "```", "python -m benchmarks.claims.decomposition", "```"]) + "\n"


def _verdict(one: Mapping[str, Any]) -> str:
    suits = []
    for part in SIZES:
        lost = {way["way"]: way["lost"] for way in one["ways"] if way["part"] == part}
        least = min(lost, key=lambda way: lost[way])
        suits.append(f"{least} loses least at 1/{part}")
    return ", ".join(suits)


def main() -> int:
    """Screens what is not screened yet, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="NAME=FOLDER of another model; repeatable")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and records")
    options = parser.parse_args()
    here = Places(options.results, options.results)
    models = {"all-MiniLM-L6-v2": minilm(), ZOO_TEACHER: here.source("wikitext2")}
    models |= {name: Path(folder) for name, _, folder in (one.partition("=") for one in options.model)}
    file = options.results / f"{NAME}.json"
    screened = read_json_object(file) if file.is_file() else {}
    for name, folder in models.items():
        if name not in screened:
            screened[name] = screen(folder)
            print(name, json.dumps(screened[name]["ways"]), flush=True)
    write_text(file, json.dumps(screened, indent=1) + "\n")
    write_text(options.results / f"{NAME}.md", markdown(screened))
    return 0


if __name__ == "__main__":
    sys.exit(main())
