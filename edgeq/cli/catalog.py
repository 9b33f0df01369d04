"""``recipes``, ``targets`` and ``doctor``: what there is, and what is missing."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from edgeq.cli.console import print_json, print_table, say
from edgeq.cli.verb import Json, verb


@verb("recipes", example="recipes")
def recipes(*, as_json: Json = False) -> None:
    """List the built-in recipes with their meaning; those that train need --train-data.

    Letters in a name say bits: w2e2a8 is 2-bit weights, 2-bit embedding tables and 8-bit activations.
    """
    from edgeq.recipes import list_recipes

    known = list_recipes()
    if as_json:
        print_json([dataclasses.asdict(recipe) for recipe in known])
    else:
        rows = [[recipe.name, "yes" if recipe.trains else "", recipe.bits, recipe.summary] for recipe in known]
        print_table(["recipe", "trains", "bits", "meaning"], rows)


@verb("targets", example="targets")
def targets(*, as_json: Json = False) -> None:
    """List the processors that bundles can be compiled for, and what is missing here for each.

    Any verb that takes a target takes the path of a file like those in edgeq/targets/builtin, too.
    """
    from edgeq.targets.builtin.target import list_targets

    known = [_target(summary.name, summary.summary) for summary in list_targets()]
    if as_json:
        print_json(known)
        return
    rows = []
    for entry in known:
        compiled_for = f"{entry['triple']} {entry['cpu']} {' '.join(entry['features'])}".strip()
        missing = "\n".join(entry["missing"]) or "-"
        rows.append([entry["name"], f"{entry['summary']}\n{compiled_for}", entry["runs"], missing])
    print_table(["target", "meaning; compiled for", "runs here", "missing here"], rows)


def _target(name: str, summary: str) -> dict[str, Any]:
    """What there is to say of a target."""
    from edgeq.doctor import target_findings
    from edgeq.errors import UnsupportedError
    from edgeq.targets.builtin.target import load_target

    entry: dict[str, Any] = {"name": name, "summary": summary}
    try:
        target = load_target(name)
    except UnsupportedError as error:  # this machine's own processor
        return entry | {"triple": "", "cpu": "", "features": [], "isa": "", "runs": "no", "missing": [str(error)]}
    findings = target_findings(name)
    runs = [found.detail for found in findings if found.name.endswith("running bundles here")] or ["on this processor"]
    missing = [f"{found.name.split(': ')[1]} ({found.fix_command})" for found in findings if not found.ok]
    compiled = {"triple": target.triple, "cpu": target.cpu, "features": list(target.features), "isa": target.isa}
    return entry | compiled | {"runs": runs[0], "missing": missing}


@verb("doctor", example="doctor\ndoctor --target cortex-a76")
def doctor(
    *,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Check what this target needs; repeatable. Default: all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is missing on this machine and which command installs it."""
    from edgeq.doctor import diagnose

    findings = diagnose(target)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": healthy, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        rows = [["ok" if finding.ok else "MISSING", finding.name, finding.detail] for finding in findings]
        print_table(["", "what", "found"], rows)
        for command in dict.fromkeys(f.fix_command for f in findings if not f.ok and f.fix_command):
            say(f"to fix: {command}")
    if not healthy:
        raise typer.Exit(1)
