"""Language models of a table beside each other."""

from __future__ import annotations

from benchmarks.claims.intervals import Ratio, paired_ratio
from benchmarks.claims.table import Finished, Table


def over(label: str, other: str, table: Table, finished: Finished) -> Ratio | None:
    """Returns the perplexity of a row over that of another, on the seeds that both have; None without any.

    Args:
        label: Label of a row.
        other: Label of the one that it is compared with.
        table: Their table.
        finished: What is finished; records of the first revision have no losses of windows, and are left out.
    """
    by_label = {row.label: row for row in table.rows}
    if label not in by_label or other not in by_label:
        return None
    sides = [
        {one["seed"]: one["window_losses"] for one in by_label[name].results(finished) if "window_losses" in one}
        for name in (label, other)
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    return paired_ratio(*([side[seed] for seed in shared] for side in sides)) if shared else None
