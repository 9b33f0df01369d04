"""The contract of graph passes, of ``export/passes`` before the file and of ``targets/compiler/passes`` after it.

A pass changes a graph in place and says in how many places. It names what must hold before it and what holds after it,
so that an order in which it would find nothing is an error, and an error inside it names the pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from edgeq.errors import EdgeqError

Graph = TypeVar("Graph")


@dataclasses.dataclass(frozen=True)
class Pass(Generic[Graph]):
    """A pass.

    Attributes:
        change: Changes a graph in place and returns the number of changes.
        requires: What must hold before, in words that another pass ensures.
        ensures: What holds after.
    """

    change: Callable[[Graph], int]
    requires: tuple[str, ...] = ()
    ensures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.change, "__name__", type(self.change).__name__)


def run_in_order(passes: Sequence[Pass[Graph]], graph: Graph) -> dict[str, int]:
    """Runs passes over a graph, in place.

    Returns:
        What each changed, by its name; one that runs twice counts together.

    Raises:
        ValueError: If a pass requires what none before it ensures.
        EdgeqError: If a pass fails; of the kind that it raised, with its name.
    """
    holds: set[str] = set()
    for one in passes:
        if missing := [fact for fact in one.requires if fact not in holds]:
            raise ValueError(f"graph pass {one.name} requires that {missing[0]}, which no pass before it ensures")
        holds.update(one.ensures)
    changes: dict[str, int] = {}
    for one in passes:
        changes[one.name] = changes.get(one.name, 0) + _changed(one, graph)
    return changes


def _changed(one: Pass[Graph], graph: Graph) -> int:
    try:
        return one.change(graph)
    except EdgeqError as error:
        raise type(error)(f"{error} (graph pass {one.name})") from error
    except Exception as error:  # what a pass did not expect of a graph must not hide where it happened
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EdgeqError(f"graph pass {one.name} failed ({reason}); report it with the model's config.json") from error
