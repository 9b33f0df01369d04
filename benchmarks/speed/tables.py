"""Results as Markdown: first the goals and what came of them, then every engine in every benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.speed import results
from benchmarks.speed.footprint_goals import limits
from benchmarks.speed.goals import Verdict, verdicts
from benchmarks.speed.setups import FLOOR, OWN
from edgeq.sizes import counted

_MIB = 1024
"""KiB in one."""
_ABSURD = 1e6
"""Few rounds give intervals without end."""


def document(entries: Sequence[dict[str, Any]], *, source: str) -> str:
    """Returns the whole page of a file of results, which is called ``source``."""
    speed = [entry for entry in entries if entry["kind"] == results.SPEED]
    parts = ["# Speed beside other engines", _HEAD.format(source), _machine(entries)]
    parts += ["## Goals", goals_table(speed), limits_table(entries), _beaten(speed), "## Every engine"]
    parts += [f"### {title(entry)}\n\n{_where(entry)}\n\n{speed_table(entry)}" for entry in speed]
    for kind, heading, table in (
        (results.START, "## From start to first result", start_table),
        (results.COMPILE, "## Compiling", compile_table),
    ):
        found = [entry for entry in entries if entry["kind"] == kind]
        if found:
            parts += [heading, *(f"### {title(entry)}\n\n{_where(entry)}\n\n{table(entry)}" for entry in found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def title(entry: dict[str, Any]) -> str:
    """Returns the heading of an entry."""
    return f"{entry['name']}, {counted(entry['threads'], 'thread')}"


def goals_table(entries: Sequence[dict[str, Any]]) -> str:
    """Returns goals and measured factors of all entries of speed."""
    columns = ("benchmark", "threads", "edgeq", "against", "goal", "measured", "")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for entry in entries:
        for verdict in verdicts(entry):
            goal = verdict.goal
            sign = "≤" if goal.against == "integer floor" else "≥"
            lines.append(
                f"| {entry['name']} | {entry['threads']} | {goal.recipe.removeprefix('ptq-')} | {_against(verdict)} "
                f"| {sign} {goal.factor:g} | {verdict.found:.2f} ({_interval(verdict.low, verdict.high)}) "
                f"| {'met' if verdict.is_met else '**missed**'} |"
            )
    return "\n".join(lines)


def limits_table(entries: Sequence[dict[str, Any]]) -> str:
    """Returns goals and measured memory and seconds; empty if none was measured."""
    lines = [
        f"| {title(entry)}: {limit.what} | ≤ {limit.most:.3g} {limit.unit} | {limit.found:.3g} {limit.unit} "
        f"| {'met' if limit.found <= limit.most else '**missed**'} |"
        for entry in entries for limit in limits(entry)
    ]  # fmt: skip
    return "\n".join(["| program | goal | measured | |", "| --- | --- | --- | --- |", *lines]) if lines else ""


def speed_table(entry: dict[str, Any]) -> str:
    """Returns one work's engines, fastest first, and how edgeq's setups compare with each."""
    present = [row for row in entry["engines"] if not row["missing"]]
    owns = [row["name"] for row in present if row["name"].startswith(OWN) and "batch 1" not in row["name"]]
    columns = ["engine", "median", *([] if entry["work"]["kind"] != "step" else ["tokens/s"])]
    columns += [*(f"{name} is faster by" for name in owns), "like float32"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    versus = {row["name"]: row["versus"] for row in present if row["name"] in owns}
    for row in sorted(present, key=lambda row: row["median"]):
        cells = [row["name"], f"{row['median'] * 1e3:.2f} ms"]
        if entry["work"]["kind"] == "step":
            batch = 1 if row["name"].endswith("batch 1") else entry["work"]["batch"]
            cells.append("" if row["name"] == FLOOR else f"{batch / row['median']:.0f}")
        cells += [_times(versus[name][row["name"]]) if row["name"] in versus[name] else "" for name in owns]
        cells.append("" if row["name"] == FLOOR else f"{row['similarity']:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_missing(entry, len(columns))])


def start_table(entry: dict[str, Any]) -> str:
    """Returns seconds to the first result and peak memory of each program."""
    columns = ("program", "whole process", "of it load and first call", "peak memory")
    lines = [f"| {' | '.join(columns)} |", "| --- | --- | --- | --- |"]
    present = [row for row in entry["engines"] if not row["missing"]]
    for row in sorted(present, key=lambda row: row["peak_kib"]):
        load = f"{row['load_seconds']:.3f} s" if row["load_seconds"] else ""
        lines.append(f"| {row['name']} | {row['process_seconds']:.3f} s | {load} | {row['peak_kib'] / _MIB:.0f} MiB |")
    return "\n".join([*lines, *_missing(entry, len(columns))])


def compile_table(entry: dict[str, Any]) -> str:
    """Returns what compiling took."""
    lines = ["| command | seconds | peak memory |", "| --- | --- | --- |"]
    lines += [
        f"| {row['name']} | {row['process_seconds']:.1f} | {row['peak_kib'] / _MIB / _MIB:.2f} GiB |"
        for row in entry["engines"]
        if not row["missing"]
    ]
    return "\n".join([*lines, *_missing(entry, 3)])


_HEAD = (
    "Made by `make bench-speed` ([how](README.md)); the numbers are in [{0}]({0}). A ratio is the "
    "median over rounds of the ratio in one round, with its 95% confidence interval. Milliseconds of different tables "
    "were not measured in the same minutes."
)


def _machine(entries: Sequence[dict[str, Any]]) -> str:
    if not entries:
        return "Nothing measured yet."
    machine = entries[-1]["machine"]
    versions: dict[str, str] = {}
    for entry in entries:
        versions |= entry["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    where = f"{machine['processor']}, cores {machine['cores']}, Linux {machine['kernel']}, Python {machine['python']}"
    return f"{where}. {packages}."


def _times(versus: dict[str, float]) -> str:
    """A factor with its interval, or that there is none to claim."""
    interval = _interval(versus["low"], versus["high"])
    if versus["low"] <= 1 <= versus["high"]:
        return f"within noise ({interval})"
    return f"{versus['ratio']:.2f}x ({interval})"


def _interval(low: float, high: float) -> str:
    return "too few rounds" if high > _ABSURD else f"{low:.2f} to {high:.2f}"


def _where(entry: dict[str, Any]) -> str:
    machine = entry["machine"]
    rounds = f", {entry['rounds']} rounds" if entry["rounds"] else ""
    counts = entry.get("avx512_instructions", [])
    wide = f" AVX-512 instructions in edgeq's code: {', '.join(map(str, counts))}." if counts else ""
    return f"{machine['date']}, commit {machine['commit']}, load average before {machine['load']}{rounds}.{wide}"


def _against(verdict: Verdict) -> str:
    if verdict.goal.against.startswith("best"):
        return f"{verdict.goal.against}: {verdict.peer}"
    return verdict.goal.against


def _beaten(entries: Sequence[dict[str, Any]]) -> str:
    """Names every peer that is faster than edgeq beyond noise, for each of edgeq's recipes."""
    lines = []
    for entry in entries:
        for row in entry["engines"]:
            if row["missing"] or not row["name"].startswith(OWN) or row["name"].endswith("batch 1"):
                continue
            faster = [n for n, v in row["versus"].items() if v["high"] < 1 and n != FLOOR and not n.startswith(OWN)]
            if faster:
                lines.append(f"- {title(entry)}: {row['name']} is slower than {', '.join(faster)}.")
    return "\n".join(["Where a peer is faster:\n", *lines]) if lines else ""


def _missing(entry: dict[str, Any], columns: int) -> list[str]:
    return [
        f"| {row['name']} | missing: {row['missing']} |{' |' * (columns - 2)}"
        for row in entry["engines"] if row["missing"]
    ]  # fmt: skip
