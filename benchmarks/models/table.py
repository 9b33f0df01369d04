"""The table of results, between two marks of a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.ledger import megabytes

FOLDER = "a folder"
"""What a package holds whose model is taken as it lies there."""
_BEGIN, _END = "<!-- models: begin -->\n", "<!-- models: end -->"
_COLUMNS = ("model", "recipe", "as shipped", "weights", "vs float32", "quality", "cosine to float",
            "neighbours or labels kept", "CPU seconds", "peak memory", "beyond libraries")  # fmt: skip


def table_lines(rows: Sequence[dict[str, Any]], *, libraries: int) -> list[str]:
    """Returns the lines of the table.

    Args:
        rows: What was measured.
        libraries: Bytes that libraries alone take.
    """
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    return [*lines, *("| " + " | ".join(_cells(row, libraries)) + " |" for row in rows)]


def update_readme(page: Path, rows: Sequence[dict[str, Any]], *, libraries: int) -> None:
    """Puts the table between the marks of a page; see :func:`table_lines`."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    table = "\n".join(table_lines(rows, libraries=libraries)) + "\n"
    page.write_text(before + _BEGIN + table + _END + after, encoding="utf-8")


def _works(row: dict[str, Any]) -> str:
    works = "yes" if row["shipped"] == FOLDER else f"rebuilt: shipped as {row['shipped']}"
    return works if row["parity"] else f"{works}; a parity rule is broken"


def _cells(row: dict[str, Any], libraries: int) -> list[str]:
    start = [row["model"], f"`{row['recipe']}`"]
    if not row["works"]:
        return [*start, f"no: {row['reason']}", *[""] * (len(_COLUMNS) - 3)]
    quality = f"{row['metric']} {row['value']:.4f} of {row['float_value']:.4f}" if "metric" in row else ""
    cosine = f"{row['cosine']:.4f} (least {row['least_cosine']:.4f})" if "cosine" in row else ""
    kept = row["neighbours"] if "neighbours" in row else row["labels"]
    return [
        *start,
        _works(row),
        megabytes(row["bytes"]),
        f"{row['float_bytes'] / row['bytes']:.2f}x",
        quality,
        cosine,
        f"{kept:.1%} of {row['texts']}",
        f"{row['cpu_seconds']:.0f}",
        megabytes(row["peak_bytes"]),
        f"{(row['peak_bytes'] - libraries) / row['float_bytes']:.1f} times float32",
    ]
