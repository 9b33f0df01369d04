"""The page of the papers' claims: for each what was done, the figure with its interval, and the verdict that follows.

Reads the records in ``benchmarks/claims/results``; what it writes into ``docs/papers.md`` follows from them alone::

    python -m benchmarks.claims.papers
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import decomposition, kngpt2, quantgpt, two_stage, xtc
from benchmarks.claims.costs import COSTS
from benchmarks.claims.intervals import Difference, Ratio
from benchmarks.claims.language_models import over
from benchmarks.claims.queue import RECORDS, RESULTS, TABLES
from benchmarks.claims.records import read_records
from benchmarks.claims.students import gap_between, gap_to_teacher, measured, share_of_teacher
from benchmarks.claims.table import Finished, Table
from benchmarks.claims.tucker import GENERAL, LOW_RANK
from benchmarks.factors.calls import TEXT
from edgeq.errors import FormatError
from edgeq.files import write_text
from edgeq.formats.stored import read_json_object

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"
BEGIN = "<!-- Written by python -m benchmarks.claims.papers; change that, not this. -->"
END = "<!-- End of what is written. -->"
REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "cannot be decided at this scale"
NOT_MEASURED = "not measured yet"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim of a paper and what came of it.

    Attributes:
        claim: What the paper says.
        done: What was done here.
        figure: What was measured, with its interval.
        verdict: One of the three, or that it was not measured yet.
        decides: What would decide it, where nothing does; empty otherwise.
    """

    claim: str
    done: str
    figure: str
    verdict: str
    decides: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """The findings of one paper.

    Attributes:
        name: Its name.
        table: Name of the table that they come from.
        findings: One a claim.
    """

    name: str
    table: str
    findings: Sequence[Finding]


class Evidence:
    """The records of every table.

    Args:
        results: Folder of the tables and records.
    """

    def __init__(self, results: Path) -> None:
        self.tables: dict[str, Table] = {name: make(1.0) for name, make in TABLES.items()}
        claims = {name: table.claims for name, table in self.tables.items()}
        self.finished: dict[str, Finished] = {
            name: read_records(results / RECORDS, claims[name]) for name in self.tables
        }
        measured_apart = [results / COSTS, results / f"{decomposition.NAME}.json"]
        self.costs, self.screened = (read_json_object(file) if file.is_file() else {} for file in measured_apart)

    def rows(self, table: str, label: str) -> list[dict[str, Any]]:
        """Returns the classifiers of a row that are finished."""
        row = next(row for row in self.tables[table].rows if row.label == label)
        return measured(row, self.finished[table])

    def gap_to_teacher(self, table: str, label: str) -> Difference | None:
        """Returns student less teacher; None if nothing is finished."""
        results = self.rows(table, label)
        return gap_to_teacher(results, self.finished[table]) if results else None

    def gap_between(self, table: str, first: str, second: str) -> Difference | None:
        """Returns one row less another, on what both have; None if nothing."""
        by_label = {row.label: row for row in self.tables[table].rows}
        found = gap_between(by_label[first], by_label[second], self.finished[table])
        return None if found is None else found[0]

    def share(self, table: str, label: str) -> Ratio | None:
        """Returns the share of the teacher's accuracy, the teacher's taken as it is; None if nothing is finished."""
        results = self.rows(table, label)
        if not results:
            return None
        gap = gap_to_teacher(results, self.finished[table])
        share = share_of_teacher(results, self.finished[table])
        teacher = results[0]["accuracy"] / share
        low, high = (share + (end - gap.points) / (100 * teacher) for end in (gap.low, gap.high))
        return Ratio(share, low, high)

    def over(self, table: str, first: str, second: str) -> Ratio | None:
        """Returns the perplexity of a row over that of another."""
        return over(first, second, self.tables[table], self.finished[table])

    def core_hours(self, table: str) -> tuple[float, int, int]:
        """Returns core-hours of the runs that are finished, how many they are, and how many there are in all."""
        names = {claim.name for claim in self.tables[table].claims}
        done = [self.finished[table][name] for name in sorted(names) if name in self.finished[table]]
        seconds = [
            (run.get("training_seconds") or run["seconds_of_last_start"]) * run["setting"]["threads"] for run in done
        ]
        return sum(seconds) / 3600, len(done), len(names)


def findings(evidence: Evidence) -> list[System]:
    """Returns what the records say about every claim."""
    return [
        System("QuantGPT", "quantgpt", _quantgpt(evidence)),
        System("XTC", "xtc", _xtc(evidence)),
        System("Two-stage progressive quantization", "two-stage", _two_stage(evidence)),
        System("Tucker", "tucker", _tucker(evidence)),
        System("KnGPT2", "kngpt2", _kngpt2(evidence)),
    ]


def decided(low: float, high: float, goal: float, *, lower: bool = False) -> str:
    """Returns the verdict on a claim that a figure is at least ``goal``, or at most, if ``lower``."""
    if lower:
        low, high, goal = -high, -low, -goal
    if low >= goal:
        return REPRODUCED
    return NOT_REPRODUCED if high < goal else UNDECIDED


def _of_ratio(claim: str, done: str, ratio: Ratio | None, *, goal: float, lower: bool, decides: str) -> Finding:
    if ratio is None:
        return Finding(claim, done, "", NOT_MEASURED, decides)
    word = decided(ratio.low, ratio.high, goal, lower=lower)
    return Finding(claim, done, str(ratio), word, decides if word == UNDECIDED else "")


def _of_gap(claim: str, done: str, gap: Difference | None, *, goal: float, decides: str) -> Finding:
    if gap is None:
        return Finding(claim, done, "", NOT_MEASURED, decides)
    word = decided(gap.low, gap.high, goal)
    return Finding(claim, done, f"{gap} points", word, decides if word == UNDECIDED else "")


_WAITS = "the runs of this table, which wait for a teacher that is trained to its plateau"


def _quantgpt(evidence: Evidence) -> list[Finding]:
    done = "GPT-2 of 7 million numbers on WikiText-2, 158 steps, three seeds"
    own = "QuantGPT 2-2-8"
    found = [
        _of_ratio(
            "2-2-8 has 1.195 times the perplexity of the float model",
            f"{done}; over the float model trained on for as many steps",
            evidence.over("quantgpt", own, quantgpt.CONTROL),
            goal=1.195, lower=True, decides=_WAITS,
        )
    ]  # fmt: skip
    for other in ("PACT", "LSQ", quantgpt.THREE, "LAQ"):
        ratio = evidence.over("quantgpt", own, f"{other} 2-2-8")
        claim = f"2-2-8 is better than {other}"
        found.append(_of_ratio(claim, done, ratio, goal=1.0, lower=True, decides=_WAITS))
    for part, claim in zip(quantgpt.PARTS, ("the contrastive loss helps", "module-wise scaling helps"), strict=True):
        ratio = evidence.over("quantgpt", own, f"QuantGPT 2-2-8 {part}")
        found.append(_of_ratio(claim, done, ratio, goal=1.0, lower=True, decides=_WAITS))
    return found


def _xtc(evidence: Evidence) -> list[Finding]:
    long_gap = evidence.gap_between("xtc", f"{xtc.SHORT}, budget C", f"{xtc.SHORT}, budget A")
    more = "more than 872 sentences: one standard error is a point"
    found = [
        _of_gap(
            "longer training gives better 1-bit models",
            "1 bit, 2104 steps less 351, three seeds",
            long_gap, goal=0.0, decides=more,
        ),
        _of_gap(
            "1 bit, all layers, loses 0.51 points (GLUE 83.44 of 83.95)",
            "SST-2, 1 bit, 6 layers, 2104 steps, three seeds; student less teacher",
            evidence.gap_to_teacher("xtc", f"{xtc.SHORT}, budget C"), goal=-0.51, decides=more,
        ),
        _of_ratio(
            "layer reduction and 1 bit keep 97% of the accuracy",
            "SST-2, 3 of 6 layers, 1 bit, 2104 steps, three seeds; share of the teacher's",
            evidence.share("xtc", "3 layers, 1 bit, budget C"), goal=0.97, lower=False, decides=more,
        ),
        _size(evidence),
    ]  # fmt: skip
    for start in xtc.STARTS:
        for budget, steps in (("B", 1052), ("C", 2104)):
            sides = [xtc.way_label(start, way, budget) for way in xtc.WAYS]
            found.append(
                _of_gap(
                    "one long stage beats two stages with as many steps",
                    f"SST-2, 3 of 6 layers, 1 bit, {start} start, {steps} steps, three seeds; one less two",
                    evidence.gap_between("xtc", *sides), goal=0.0,
                    decides="the runs of this table with as many steps in one stage and in two",
                )
            )  # fmt: skip
    return found


def _size(evidence: Evidence) -> Finding:
    claim = "layer reduction and 1 bit are 50 times smaller"
    done = "bytes of all tensors as stored, 3 of 6 layers, 1 bit, against the teacher in float32"
    small = evidence.rows("xtc", "3 layers, 1 bit, budget C")
    whole = evidence.rows("xtc", f"{xtc.SHORT}, budget C")
    if not small or not whole:
        return Finding(claim, done, "", NOT_MEASURED, "the runs of this table")
    book = small[0]["stored_bytes"]
    times = whole[0]["stored_bytes"]["float32_bytes"] / book["stored_bytes"]
    decides = (
        f"a model as wide as BERT-base: at width 384 {book['float_bytes'] / book['stored_bytes']:.0%} of the bytes are "
        "of what stays float; sizes at true dimensions are in "
        "[benchmarks](benchmarks.md#sizes-at-true-dimensions)"
    )
    enough = times >= 50
    verdict = REPRODUCED if enough else UNDECIDED
    return Finding(claim, done, f"{times:.1f} times, exact", verdict, "" if enough else decides)


def _two_stage(evidence: Evidence) -> list[Finding]:
    earlier = "the runs of this table that are one run, and BinaryBERT with its weight splitting, which edgeq has not"
    found = []
    for width, augmented, against in (
        ("ternary", False, "at once"),
        ("binary", True, "ternary, then all at once"),
        ("binary", True, "at once"),
    ):
        sides = [two_stage.finer_label(width, way, augmented=augmented) for way in ("progressive", against)]
        what = "TWN" if width == "ternary" else "BinaryBERT" if against.startswith("ternary") else "BWN"
        with_ = "with" if augmented else "without"
        found.append(
            _of_gap(
                f"better than earlier {width} methods {with_} augmentation",
                f"SST-2, 1052 steps, three seeds, one optimizer and order; less {what}'s way ({against})",
                evidence.gap_between("two-stage", *sides), goal=0.0, decides=earlier,
            )
        )  # fmt: skip
    for width in two_stage.WIDTHS:
        gap = evidence.gap_between("two-stage", *(f"{width}, {way}" for way in two_stage.WAYS))
        if gap is not None:
            found.append(
                Finding(
                    "(no claim of the paper: all at once is a stronger baseline of XTC's kind)",
                    f"SST-2, {width}, half an epoch, three seeds, stages that start anew; progressive less at once",
                    f"{gap} points", "no claim",
                )
            )  # fmt: skip
    return found


def _tucker(evidence: Evidence) -> list[Finding]:
    runs = "the runs of this table with general distillation and 2.5 + 2.5 epochs"
    found = []
    for label, claim, goal in (
        ("IV-36-192", "1/7 of the encoder is on par with the whole", 1.0),
        ("III-46", "1/48 has 96.7% of the whole", 0.967),
    ):
        ratio = evidence.share("tucker", label + GENERAL)
        if ratio is not None:
            done = f"SST-2, {label}, general distillation on WikiText-2, then 5 epochs; share of the teacher's"
            more = "more than 872 sentences, and more seeds"
            found.append(_of_ratio(claim, done, ratio, goal=goal, lower=False, decides=more))
            continue
        before = evidence.share("tucker", label)
        figure = "" if before is None else f"{before} after one epoch without general distillation, which is too short"
        found.append(Finding(claim, f"SST-2, {label}, as the paper trains it", figure, NOT_MEASURED, runs))
    gap = evidence.gap_between("tucker", "IV-36-192" + GENERAL, LOW_RANK + GENERAL)
    found.append(
        _of_gap(
            "better than low rank of equal size",
            "SST-2, IV-36-192 less low rank 25, both with general distillation and 5 epochs",
            gap, goal=0.0, decides=runs,
        )
    )  # fmt: skip
    return [*found, _common(evidence), _speed(evidence)]


def _common(evidence: Evidence) -> Finding:
    claim = "the matrices of all blocks have factors in common"
    done = "all-MiniLM-L6-v2 (6 blocks), no training: squared weights lost at 1/7 by a Tucker bank, by low rank"
    ways = evidence.screened.get("all-MiniLM-L6-v2", {}).get("ways", [])
    lost = {way["way"].split("-")[0]: way["lost"] for way in ways if way["part"] == 7}
    if "Tucker IV" not in lost:
        return Finding(claim, done, "", NOT_MEASURED, "python -m benchmarks.claims.decomposition")
    shared = lost["Tucker IV"]
    alone = min(value for way, value in lost.items() if way.startswith("low rank"))
    decides = "" if shared < alone else "a model of 12 blocks, as BERT-base: no weights of one are at hand"
    verdict = REPRODUCED if shared < alone else UNDECIDED
    return Finding(claim, done, f"{shared:.1%}, {alone:.1%}, exact", verdict, decides)


def _speed(evidence: Evidence) -> Finding:
    claim, done = "1/48 is 2.7 times faster", "III-46 compiled for the machine, one thread, a text of 128 tokens"
    times = evidence.costs.get("milliseconds", {})
    if not {"teacher-sst2", "sst2-tucker1-1"} <= times.keys():
        return Finding(claim, done, "", NOT_MEASURED, "python -m benchmarks.claims.costs --runs RUNS")
    ratio = times["teacher-sst2"][TEXT] / times["sst2-tucker1-1"][TEXT]
    figure = f"{ratio:.2f} times, the fastest of {evidence.costs['rounds']} turns each; no interval"
    return Finding(claim, done, figure, REPRODUCED if ratio >= 2.7 else NOT_REPRODUCED)


def _kngpt2(evidence: Evidence) -> list[Finding]:
    found = []
    for share, much in ((0.1, "10% of the text"), (1.0, "all of the text")):
        ending = kngpt2.PRETRAINED[share]
        found.append(
            _of_ratio(
                "better perplexity than DistilGPT2 at equal size, with light pre-training (20.5 of 23.7: 0.865)",
                f"GPT-2 of 7 million numbers, pre-trained on {much}, 158 steps, three seeds; over layer-drop's",
                evidence.over("kngpt2", kngpt2.HALVED + ending, kngpt2.BASELINE + ending),
                goal=1.0, lower=True, decides=_WAITS,
            )
        )  # fmt: skip
    found.append(
        Finding(
            "better on GLUE than DistilGPT2 (79.25 against 76.8)",
            "nothing: `GPT2ForSequenceClassification` is trained and deployed, but was not measured on GLUE",
            "", NOT_MEASURED, "a GPT-2 that is worth fine-tuning",
        )
    )  # fmt: skip
    return found


def section(evidence: Evidence) -> str:
    """Returns the part of the page that follows from the records."""
    parts = [BEGIN, "", "## Claims and verdicts", ""]
    parts += [
        "One paper after the other: what it claims, what was done here, the figure with its 95% interval (resampled "
        "sentences or windows, and seeds), and what follows. *Reproduced* means that the whole interval is on the "
        "claim's side, at this scale: models of 7 to 23 million numbers, minutes of training. *Not reproduced* means "
        "that all of it is on the other side. Where the figure cannot tell, or was not measured, the last column says "
        "what would. Core-hours are those of the finished runs, as far as their records say.",
        "",
    ]
    for system in findings(evidence):
        hours, done, total = evidence.core_hours(system.table)
        parts += [f"### {system.name}", "", "| claim | done here | figure [95%] | verdict | what would decide it |"]
        parts.append("|---|---|---|---|---|")
        parts += [
            f"| {one.claim} | {one.done} | {one.figure} | {one.verdict} | {one.decides} |" for one in system.findings
        ]
        command = f"python -m benchmarks.claims.queue --data DATA --runs RUNS --table {system.table}"
        parts += ["", f"{done} of {total} runs of this table are finished: {hours:.1f} core-hours. `{command}`", ""]
    parts.append(
        "Tables, records and training logs are in `benchmarks/claims/results`. Tables that begin with *first* are of "
        "an earlier revision of the code and of a teacher that was still improving: no verdict rests on them."
    )
    return "\n".join([*parts, "", END])


def with_section(page: str, written: str) -> str:
    """Returns a page with its written part replaced.

    Raises:
        FormatError: If the page has not the two lines between which it lies.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FormatError(f"{PAGE.name} should hold the lines {BEGIN!r} and {END!r}")
    return before + written + after


def main() -> int:
    """Writes the page anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and records")
    evidence = Evidence(parser.parse_args().results)
    write_text(PAGE, with_section(PAGE.read_text(encoding="utf-8"), section(evidence)))
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
