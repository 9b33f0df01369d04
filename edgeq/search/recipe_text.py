"""Widths, shapes and calibration as a recipe file that anyone can read and edit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgeq.search.report import Choice
from edgeq.search.rounding import GRIDS

BASE = """[weights]
bits = 8

[activations]
mode = "dynamic"

[embeddings]
bits = 8

[[override]]
pattern = '(\\w+\\.)?embeddings\\.token_type_embeddings'
keep_float = true
reason = "a table of two rows would be padded to 16 and grow"
"""
"""What every recipe of a search has in common; widths of single layers follow."""
_RATES = {True: (0.005, 300), False: (0.01, 100)}
"""Rate of weights and steps of distillation, with layers of 1 or 2 bits and without."""


def recipe_text(
    name: str, summary: str, *, widths: Mapping[str, Choice], methods: Sequence[str], tables: str = ""
) -> str:
    """Writes a recipe.

    Args:
        name: Its name.
        summary: Its meaning in one line.
        widths: The width of each layer that was searched.
        methods: Methods of calibration; none for rounding to the nearest level.
        tables: Tables of the structure, as :meth:`edgeq.search.space.Space.tables` writes them.
    """
    parts = [f'name = "{name}"\nsummary = "{summary}"\n', BASE, *([tables] if tables else [])]
    if methods:
        listed = ", ".join(f'"{method}"' for method in methods)
        parts.append(f"[calibrate]\nmethod = [{listed}]\n")
        if "distill" in methods:
            rate, steps = _RATES[any(choice.bits <= 2 for choice in widths.values())]
            rates = f"{{ weights = {rate}, scales = 0.001, others = 0.0005 }}"
            parts.append(f"[calibrate.distill]\nsteps = {steps}\nsimilarities = 1.0\nbf16 = true\nrates = {rates}\n")
    parts += [_override(layer, choice) for layer, choice in widths.items()]
    return "\n".join(parts)


def base_text(name: str, tables: str) -> str:
    """Writes the recipe of a structure at 8 bits, for its shapes alone: a dropped block asks for a distillation."""
    distilled = "[calibrate]\nmethod = 'distill'\n[calibrate.distill]\nsteps = 1\n" if "[layers]" in tables else ""
    return f'name = "{name}"\nsummary = "8 bits"\n\n{BASE}\n{tables}\n{distilled}'


def _override(layer: str, choice: Choice) -> str:
    note = f"# {choice.bytes:,} bytes; rounded alone, it moves the output by {choice.error:.2g}"
    table = f"[[override]]\npattern = '{re.escape(layer)}'\nbits = {choice.bits}\ngrid = \"{GRIDS[choice.bits]}\"\n"
    return f"{note}\n{table}"
