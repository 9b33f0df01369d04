"""What every table of claims is: rows, each a run or several, and searches that give rows their learning rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.rates import Rates, Search, with_rates
from edgeq.sizes import counted

Finished = Mapping[str, dict[str, Any]]
"""Results by the name of the run."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: What it is called.
        claims: Its runs, one a seed, with any learning rate.
        search: Name of the search that gives the learning rates; None where ``rates`` has both.
        rate: Learning rate, where it is not the best of the search.
        rates: Both rates, where no search gives them.
    """

    label: str
    claims: tuple[Claim, ...]
    search: str | None
    rate: float | None = None
    rates: Rates | None = None

    def results(self, finished: Finished) -> list[dict[str, Any]]:
        """Returns the results that are there, in the order of the seeds."""
        return [finished[claim.name] for claim in self.claims if claim.name in finished]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of claims.

    Attributes:
        name: Name of its files.
        title: Its heading.
        command: What makes it.
        rows: Its rows.
        searches: Its searches by name.
        render: Makes markdown of the results; told the table and what is finished.
    """

    name: str
    title: str
    rows: Sequence[Row]
    searches: Mapping[str, Search]
    render: Callable[[Table, Finished], list[str]]

    def ready(self, finished: Finished) -> list[Claim]:
        """Returns the runs that are not finished and can be done: searches, then rows seed by seed.

        A row that was run with another learning rate than the search now says is run again.
        """
        runs = [claim for one in self.searches.values() for claim in one.missing(finished)]
        rated = [
            (number, with_rates(claim, rates))
            for row in self.rows
            if (rates := self._rates(row, finished)) is not None
            for number, claim in enumerate(row.claims)
        ]
        # All rows with the first seed, then all with the second: a table is whole early, and grows surer.
        runs += [claim for _, claim in sorted(rated, key=lambda pair: (pair[0], pair[1].epochs))]
        left = [claim for claim in runs if finished.get(claim.name, {}).get("changes") != claim.changes]
        return [claim for claim in left if claim.can_run]

    def _rates(self, row: Row, finished: Finished) -> Rates | None:
        """Returns the rates of a row; None while its search is not finished."""
        if row.search is None:
            return row.rates
        one = self.searches[row.search]
        if one.missing(finished):
            return None
        return one.best(finished) if row.rate is None else Rates(row.rate)

    @property
    def claims(self) -> list[Claim]:
        """All runs: of the searches, and of the rows with any learning rate."""
        tried = [claim for one in self.searches.values() for claim in one.runs.values()]
        return [*tried, *(claim for row in self.rows for claim in row.claims)]

    def to_markdown(self, finished: Finished, *, command: str) -> str:
        """Returns the table with the command that made it."""
        done = sum(len(row.results(finished)) for row in self.rows)
        total = sum(len(row.claims) for row in self.rows)
        lines = [f"# {self.title}", "", *self.render(self, finished), "", f"{done} of {total} runs are finished."]
        lines += [*_settings(self.rows, finished), "", *self._searched(finished), "", "```", command, "```"]
        return "\n".join(lines) + "\n"

    def _searched(self, finished: Finished) -> list[str]:
        """Lists what each learning rate came to in the short runs."""
        if not self.searches:
            return ["No learning rate was searched for this table: the rows say theirs."]
        lines = ["Learning rates that were tried in short runs:", ""]
        for name, one in self.searches.items():
            figures = [f"{rates}: {_shown(figure)}" for rates, figure in one.figures(finished).items()]
            lines.append(f"- {name} ({one.metric}): {', '.join(figures)}")
        return lines


def _shown(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:.4g}"


def _settings(rows: Sequence[Row], finished: Finished) -> list[str]:
    results = [result for row in rows for result in row.results(finished)]
    if not results:
        return []
    kinds = {
        f"{one['setting']['accelerator'] or one['setting']['processor']}, "
        f"{counted(one['setting']['threads'], 'thread')}, torch {one['setting']['torch']}"
        for one in results
    }
    seeds = sorted({str(one["seed"]) for one in results})
    return [f"Seeds: {', '.join(seeds)}. Measured on: {'; '.join(sorted(kinds))}."]
