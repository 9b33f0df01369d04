"""Renders a report as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import string
from collections.abc import Sequence
from html import escape
from importlib import resources

from edgeq.ledger import cache_sentence, grouped, megabytes
from edgeq.report import plots
from edgeq.report.answer import Answer, answer
from edgeq.report.text import duration, milliseconds, summary_table, workload
from edgeq.results import Accuracy, ParityReport, Report, RunLedger, RunProfile, Training
from edgeq.sizes import counted

GENERATOR = b'<meta name="generator" content="edgeq">'
"""What every page of edgeq holds, and pages of others do not."""
_PARTS = ("code", "scale", "padding", "float", "stored")
_LONGEST_NUMBER = 20
"""Characters of a number with its unit; a longer cell is a sentence that begins with one."""


def render(report: Report) -> str:
    """Returns the page."""
    about, recipe = report.about, report.about.recipe
    title = f"{about.name} as {recipe.name}"
    body = string.Template(resource("page.html")).substitute(
        title=escape(title),
        about=(
            f"Source <code>{escape(about.source)}</code>. Recipe <b>{escape(recipe.name)}</b>: "
            f"{escape(recipe.summary)}. Targets: {escape(', '.join(about.targets))}."
        ),
        answer=_answer(answer(report)),
        verdicts="\n".join(
            f'<li class="{verdict.level}">{escape(verdict.sentence)}</li>' for verdict in report.verdicts
        ),
        summary=table(*summary_table(report)),
        taken=table(
            ["what", "as the model's folder has it", "file that says so"],
            [[row.what, row.value, row.file] for row in about.taken],
        ),
        accuracy=_accuracy(report.accuracy),
        training="" if report.training is None else _training(report.training),
        parity=_parity(report.parity),
        ledger=_ledger(report.ledger),
        latency=_latency(report.profile),
    )
    footer = f"edgeq {report.edgeq}, recipe {recipe.name} {recipe.sha256[:12]}"
    return document(body, title=title, footer=footer)


def document(body: str, *, title: str, footer: str) -> str:
    """Returns a whole page around its body, which is HTML; title and footer are plain text."""
    return string.Template(resource("frame.html")).substitute(
        title=escape(title), style=resource("style.css"), body=body, footer=escape(footer)
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[bool] = ()) -> str:
    """Returns a table; columns of numbers are aligned right, marked rows stand out."""
    numbers = [all(_is_number(row[index]) for row in rows) for index in range(len(columns))]
    numeric = [index > 0 and is_one and bool(rows) for index, is_one in enumerate(numbers)]
    classes = [' class="number"' if flag else "" for flag in numeric]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(columns, classes, strict=True))
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True))
        broken = ' class="broken"' if index < len(marked) and marked[index] else ""
        lines.append(f"<tr{broken}>{cells}</tr>")
    body = "\n".join(lines)
    # A wide table scrolls by itself, with the keyboard too, so that a narrow page does not.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(", ".join(filter(None, columns)))}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _answer(found: Answer) -> str:
    """The first screen."""
    tiles = "\n".join(
        f'<div><dt>{escape(tile.question)}</dt><dd>{escape(tile.value)}</dd>'
        f'<dd class="small">{escape(tile.note)}</dd></div>'
        for tile in found.tiles
    )
    return (
        f'<section id="answer" class="answer {found.level}">\n<h2>May I ship this?</h2>\n'
        f'<p>{escape(found.sentence)}</p>\n<dl class="tiles">\n{tiles}\n</dl>\n</section>'
    )


def _is_number(cell: str) -> bool:
    return not cell or (cell[0] in "+-0123456789" and len(cell) <= _LONGEST_NUMBER)


def resource(name: str) -> str:
    """Returns a file of this package as text."""
    return resources.files("edgeq.report").joinpath(name).read_text(encoding="utf-8")


def _accuracy(accuracy: Accuracy) -> str:
    if not accuracy.measured:
        return f"<p>Not measured: {escape(accuracy.reason)}.</p>"
    rows = []
    others = list(dict.fromkeys(name for score in accuracy.stages.values() for name in score.others))
    for name, score in accuracy.stages.items():
        loss = accuracy.losses.get(name)
        further = [f"{score.others[other]:.4f}" if other in score.others else "" for other in others]
        interval = [f"{loss.value:+.4f}", f"{loss.low:+.4f} to {loss.high:+.4f}"] if loss else ["", ""]
        rows.append([name, f"{score.value:.4f}", *further, *interval])
    columns = ["stage", accuracy.metric, *others, "loss", "95% interval of the loss"]
    note = (
        f'<p class="small">{accuracy.examples} {escape(accuracy.unit)} of '
        f"<code>{escape(accuracy.data)}</code>. The interval is a paired bootstrap.</p>"
    )
    return plots.accuracy_plot(accuracy) + table(columns, rows) + note


def _training(training: Training) -> str:
    """A section of its own: most recipes need no training, and their page does not speak of it."""
    rows = []
    for stage in training.stages:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in stage.values.items() if value is not None)
        weights = "" if stage.weights_of is None else str(stage.weights_of)
        rows.append([stage.name, str(stage.steps), duration(stage.seconds), weights, figures])
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in training.settings.items())
    parts = [
        plots.training_plot(training),
        table(["stage", "steps", "time of its steps", "weights of step", "evaluation of these weights"], rows),
        f'<p class="small">Task {escape(training.task)}; {escape(settings)}. Figures are those of the model in '
        f"training; those of the packed one stand under Accuracy. The log is in "
        f"<code>{escape(training.folder)}</code>.</p>",
    ]
    return '<section id="training">\n<h2>Training</h2>\n' + "\n".join(parts) + "\n</section>"


def _parity(parity: ParityReport) -> str:
    checks, conditions = parity.checks, parity.conditions
    rows = [[check.stage, check.rule, "holds" if check.passed else "BROKEN", check.detail] for check in checks]
    listing = table(["stage", "rule", "result", "found"], rows, marked=[not check.passed for check in checks])
    count = len(parity.broken)
    verdict = f"<b>{count} of {len(checks)} checks are broken.</b>" if count else f"All {len(checks)} checks hold."
    verdict += "".join(f"<br>Not checked: {escape(reason)}." for reason in conditions.not_checked)
    if conditions.library:
        verdict += f"<br>Texts were compared with {escape(conditions.library)}."
    # A long list of good news is folded away; bad news never is.
    state = " open" if count else ""
    return f"<p>{verdict}</p><details{state}><summary>Every check</summary>{listing}</details>"


def _ledger(ledger: RunLedger) -> str:
    names = {"float32": ledger.float, "checkpoint": ledger.checkpoint, "ONNX": ledger.onnx}
    names |= {f"bundle {name}": book for name, book in ledger.bundles.items()}
    totals = [
        [
            name,
            *(megabytes(getattr(book.totals, f"{part}_bytes")) for part in _PARTS),
            f"{book.totals.ratio:.2f}x",
            f"{book.totals.paper_ratio:.2f}x",
            megabytes(book.totals.folder_bytes),
        ]
        for name, book in names.items()
    ]
    columns = [
        "",
        "codes",
        "scales",
        "padding",
        "float",
        "tensors",
        "smaller",
        "as papers count",
        "whole folder",
    ]
    detail = table(
        ["tensor", "kind", "shape", "bits", "stored bits", "bytes", "why float"],
        [
            [
                row.tensor,
                row.kind,
                " × ".join(str(extent) for extent in row.shape),
                str(row.nominal_bits),
                f"{row.stored_bits:.3f}",
                f"{row.stored_bytes:,}",
                row.reason or "",
            ]
            for row in grouped(ledger.checkpoint.rows)
        ],
    )
    folded = f"<details><summary>Every matrix of the checkpoint</summary>{detail}</details>"
    int8 = ledger.checkpoint.int8_attention
    attention = f"<p>The attention of {int8} layers multiplies int8, which stores nothing.</p>" if int8 else ""
    kept = {name: book.cache for name, book in ledger.bundles.items() if book.cache is not None}
    sentences = {cache_sentence(cache) for cache in kept.values()}
    caches = "".join(f"<p>{escape(sentence[0].upper() + sentence[1:])}.</p>" for sentence in sorted(sentences))
    return plots.size_plot(ledger) + table(columns, totals) + attention + caches + folded


def _latency(profile: RunProfile) -> str:
    parts = []
    for name, measured in profile.measured.items():
        rows = [
            [
                backend,
                *map(milliseconds, (timing.median, timing.p95, timing.spread, timing.fastest)),
                str(timing.calls),
                measured.speedups[backend].sentence if backend in measured.speedups else "",
            ]
            for backend, timing in measured.timings.items()
        ]
        columns = ["", "median", "p95", "spread", "fastest", "calls", "edgeq against it"]
        facts = ", ".join(f"{key} {value}" for key, value in measured.machine.items())
        parts += [
            f"<h3>Bundle {escape(name)}: {measured.batch} × {workload(measured)}, "
            f"{counted(measured.threads, 'thread')}, {counted(measured.rounds, 'round')}</h3>",
            plots.latency_plot(measured),
            table(columns, rows),
            *(f"<p>{escape(base)} was not measured: {escape(why)}.</p>" for base, why in measured.missing.items()),
            "<h3>Where the time goes</h3>",
            plots.operator_plot(measured),
            f'<p class="small">{escape(facts)}</p>',
        ]
    for name, reason in profile.not_measured.items():
        parts.append(f"<p>Bundle {escape(name)}: not measured, {escape(reason)}.</p>")
    return "\n".join(parts)
