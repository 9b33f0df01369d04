"""The verbs by what one wants to do: how ``edgeq --help`` is ordered."""

from __future__ import annotations

from typing import Any

import typer.core

GROUPS: dict[str, tuple[str, ...]] = {
    "The main job": ("deploy",),
    "Build, stage by stage": ("compress", "export", "compile", "search", "pack", "unpack", "sign", "ort-library"),
    "Prove": ("parity", "diff", "verify", "size", "profile", "estimate", "report", "compare"),
    "Run": ("run", "generate", "serve"),
    "Look up": ("recipes", "targets", "doctor"),
}
"""Verbs in the order of the help. One that is in no group comes last."""
OTHERS = "Others"

EPILOG = """[bold]Start here[/bold]

\b
edgeq deploy ./my-bert ./run --recipe ptq-w8a8 --target host
edgeq run ./run/bundles/host --text "A cat sat on the mat."
edgeq deploy --help"""


def group_of(verb: str) -> str:
    """Returns the heading under which a verb stands in the help."""
    return next((group for group, verbs in GROUPS.items() if verb in verbs), OTHERS)


class OrderedVerbs(typer.core.TyperGroup):
    """Lists verbs in the order of :data:`GROUPS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # typer's own copy of click's Context
        """Returns the names of the verbs."""
        order = [verb for verbs in GROUPS.values() for verb in verbs]
        known = super().list_commands(ctx)
        return sorted(known, key=lambda verb: order.index(verb) if verb in order else len(order))
