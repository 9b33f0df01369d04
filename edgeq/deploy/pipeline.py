"""Runs the stages of a run in order, and skips those whose results are there already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import edgeq
from edgeq.deploy.state import RunState, digest
from edgeq.memory import give_back
from edgeq.progress import Progress


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: Name in ``deploy.json`` and in progress bars.
        outputs: Files or folders that it writes, relative to the run's folder; nobody else writes them.
        needs: Names of the stages whose files it reads.
        parameters: JSON values that its result depends on besides those files.
        run: Does the work; every output must appear whole or not at all.
    """

    name: str
    outputs: tuple[str, ...]
    needs: tuple[str, ...]
    parameters: dict[str, Any]
    run: Callable[[Progress], None]


def run_stages(stages: Sequence[Stage], state: RunState, *, progress: Progress) -> list[str]:
    """Runs what is not finished, in the given order.

    Args:
        stages: Each after the stages that it needs.
        state: Read and updated; saved after each stage, so that a killed run goes on where it was.
        progress: Told the progress inside each stage, with the stage's name in front.

    Returns:
        Names of the stages that really ran.
    """
    ran = []
    for stage in stages:
        key = digest(
            {
                "stage": stage.name,
                "edgeq": edgeq.__version__,
                "parameters": stage.parameters,
                "needs": {name: digest(state.stages[name].files) for name in stage.needs},
            }
        )
        if state.is_current(stage.name, key, stage.outputs):
            progress(f"{stage.name}: unchanged since the last run", 1, 1)
            continue
        stage.run(_named(stage.name, progress))
        give_back()  # the next stage loads its own models
        state.finish(stage.name, key, stage.outputs)
        ran.append(stage.name)
    return ran


def _named(stage: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{stage}: {what}", done, total)
