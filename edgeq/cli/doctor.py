"""``doctor``: what is missing on this machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_table, say
from edgeq.cli.verb import Json, verb


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
