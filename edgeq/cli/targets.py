"""``targets``: the processors that bundles can be compiled for."""

from __future__ import annotations

from typing import Any

from edgeq.cli.console import print_json, print_table
from edgeq.cli.verb import Json, verb


@verb("targets", example="targets")
def targets(*, as_json: Json = False) -> None:
    """List the processors that bundles can be compiled for, and what is missing here for each.

    "tested" says where the project's tests run the code of a target: natively, in an emulator, under wine, or nowhere
    ("built only": it is compiled and linked).

    Any verb that takes a target also takes the path of a .toml file like those in edgeq/targets/builtin.
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
        tested = entry["tested"] if entry["tested"] in ("", "built only") else f"run: {entry['tested']}"
        rows.append([entry["name"], f"{entry['summary']}\n{compiled_for}", tested, entry["runs"], missing])
    print_table(["target", "meaning; compiled for", "tested", "runs here", "missing here"], rows)


def _target(name: str, summary: str) -> dict[str, Any]:
    """What there is to say of a target."""
    from edgeq.doctor import target_findings
    from edgeq.errors import UnsupportedError
    from edgeq.targets.builtin.target import load_target

    entry: dict[str, Any] = {"name": name, "summary": summary}
    try:
        target = load_target(name)
    except UnsupportedError as error:  # this machine's own processor
        nothing = {"triple": "", "cpu": "", "features": [], "isa": "", "tested": ""}
        return entry | nothing | {"runs": "no", "missing": [str(error)]}
    findings = target_findings(name)
    runs = [found.detail for found in findings if found.name.endswith("running bundles here")] or ["on this processor"]
    missing = [f"{found.name.split(': ')[1]} ({found.fix_command})" for found in findings if not found.ok]
    compiled = {"triple": target.triple, "cpu": target.cpu, "features": list(target.features), "isa": target.isa}
    return entry | compiled | {"tested": target.run, "runs": runs[0], "missing": missing}
