"""Tables of what edgeq supports, made from the code: `python docs/supported.py` writes them into README.md.

Run it after adding a model family, a target or a recipe; a test checks that the README is current.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeq.formats.tasks import TASKS
from edgeq.models.registry import supported_families
from edgeq.recipes import list_recipes
from edgeq.targets.builtin.target import list_targets, load_target

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- supported: begin -->\n", "<!-- supported: end -->"
_RUNS = {
    "natively": "natively",
    "emulator": "in an emulator",
    "wine": "under wine",
    "built only": "nowhere, only built and linked",
}


def models_table() -> str:
    """Returns which tasks the models of each family may be for, as a Markdown table; families alike share a row."""
    columns = list(TASKS.values())
    lines = [
        f"| family | {' | '.join(task.does for task in columns)} |",
        f"| `--task` | {' | '.join(f'`{task.pipelines[0]}`' for task in columns)} |",
    ]
    lines.insert(1, "|---|" + "---|" * len(columns))
    alike: dict[tuple[str, ...], list[str]] = {}
    for family, architectures in supported_families().items():
        known = set(architectures.values())
        alike.setdefault(tuple("yes" if task.name in known else "" for task in columns), []).append(family)
    lines += [f"| {', '.join(families)} | {' | '.join(cells)} |" for cells, families in alike.items()]
    return "\n".join(lines) + "\n"


def targets() -> str:
    """Returns the built-in targets by where the tests run their code."""
    lines = []
    for run, words in _RUNS.items():
        found = [load_target(summary.name) for summary in list_targets() if load_target(summary.name).run == run]
        names = [f"`{target.name}`" + ("" if target.loads_code else " (as sources)") for target in found]
        lines.append(f"- {words}: {', '.join(names)}\n")
    return f"Targets, by where the tests run their code (`edgeq targets` says more):\n\n{''.join(lines)}"


def names() -> str:
    """Returns the built-in targets, and a line with the families of recipes."""
    families = sorted({re.split(r"-(?=w\d|l\d|iii|iv|\d)", recipe.name)[0] for recipe in list_recipes()})
    recipes = ", ".join(f"`{family}`" for family in families)
    return f"{targets()}\nRecipes (`edgeq recipes` explains each): {recipes}.\n"


def section() -> str:
    """Returns what stands between the two marks of the README."""
    return f"{models_table()}\n{names()}"


def with_section(text: str) -> str:
    """Returns the README with the current section."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{section()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_section(README.read_text(encoding="utf-8")), encoding="utf-8")
