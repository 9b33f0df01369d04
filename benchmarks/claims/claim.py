"""One run of a claim: a recipe with its settings, carried out, measured, and written down."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.claims.measure import (
    Places,
    checkpoint_sha256,
    measure_classifier,
    measure_language_model,
    measure_regression,
)
from benchmarks.claims.setting import describe_setting
from benchmarks.claims.training_logs import read_log, training_seconds
from edgeq.compress import compress_model
from edgeq.errors import EdgeqError, UsageError
from edgeq.files import write_text
from edgeq.ledger import ledger
from edgeq.progress import Progress, silent
from edgeq.recipes import TrainingRequest, load_recipe
from edgeq.results import TrainingResult

REVISION = 2
"""Of the code that decides what a run comes to beside its recipe, kept in each record; those without one are of 1.

2: the smaller Kronecker factor starts at a root mean square of 1, and the rates of what quantizers learn are relative
to its size. Runs without Kronecker factors and without learned quantizers are the same runs in both.
"""
SEARCH_WINDOWS = 128
"""Windows of the validation text that learning rates are compared on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that a table needs.

    Attributes:
        name: Its name, and that of its folder.
        task: ``sst2``, ``stsb`` or ``wikitext2``: what the source, the data and the measurement are.
        base: Built-in recipe that it extends.
        changes: What it says differently, as the tables of a recipe file.
        epochs: Passes over the training data.
        seed: Of the training.
        search: Whether it only helps to choose a learning rate, and is measured on little for that.
        source: Name of the float model, where it is not the task's own; see ``Places.source``.
        pretraining: Part of WikiText-2's training text that is pre-trained on before the task.
        start_from: Name of the run whose training this one starts from, instead of from the float model.
        since: First revision of the code whose records are of this run.
        until: Last one; the run cannot be repeated where it is before the present :data:`REVISION`.
    """

    name: str
    task: str
    base: str
    changes: Mapping[str, Any]
    epochs: float
    seed: int
    search: bool = False
    source: str = ""
    pretraining: float = 0.0
    start_from: str = ""
    since: int = 1
    until: int = REVISION

    @property
    def can_run(self) -> bool:
        """Whether the code as it is does this run."""
        return self.until >= REVISION

    @property
    def recipe_text(self) -> str:
        """The recipe file of the run."""
        lines = [f"extends = {json.dumps(self.base)}", f"name = {json.dumps(self.name)}"]
        return "\n".join([*lines, *_toml(self.changes)]) + "\n"


def _toml(table: Mapping[str, Any], above: str = "") -> list[str]:
    """Writes a table."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [f"[{above}{key}]", *_toml(value, f"{above}{key}.")]
    return lines


def _value(value: Any) -> str:
    """Writes a value on one line; texts, numbers and truth look as in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def run_claim(claim: Claim, places: Places, *, progress: Progress = silent) -> dict[str, Any]:
    """Carries a run out, or goes on with it.

    A training that diverges is a result as well, with the reason.

    Args:
        claim: The run.
        places: Where data, models and runs are.
        progress: Told how far it is.

    Returns:
        The run, what was measured of it, and where.

    Raises:
        UsageError: If data or models are missing, or the run is of an earlier revision of the code.
    """
    if not claim.can_run:
        raise UsageError(f"{claim.name} is of revision {claim.until} of the code, which is {REVISION} now")
    folder = places.runs / claim.name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.toml", claim.recipe_text)
    recipe = load_recipe(folder / "recipe.toml")
    started = time.monotonic()
    source = places.source(claim.source or claim.task)
    result = dataclasses.asdict(claim) | {
        "revision": REVISION,
        "base_sha256": load_recipe(claim.base).sha256,
        "teacher": checkpoint_sha256(source),
    }
    request = TrainingRequest(
        train_data=places.train_data(claim.task),
        # A language model ends at its last step; measuring it in between would choose nothing.
        eval_data=None if claim.task == "wikitext2" else places.validation_data(claim.task),
        pretrain_data=places.pretraining_text(claim.pretraining) if claim.pretraining else None,
        start_from=places.runs / claim.start_from / "training" if claim.start_from else None,
        epochs=claim.epochs,
        seed=claim.seed,
        resume=True,
        folder=folder / "training",
    )
    checkpoint = folder / "checkpoint"
    try:
        compress_model(source, checkpoint, recipe=recipe, training=request, progress=progress)
    except UsageError:
        raise
    except EdgeqError as error:
        result["failed"] = str(error).replace(str(places.runs), "RUNS")
    else:
        result |= _measured(claim, checkpoint, places, progress)
        result["stored_bytes"] = ledger(checkpoint).to_json()["totals"]
        result["steps"] = TrainingResult.read(folder / "training" / "result.json").steps
    result["training_seconds"] = training_seconds(read_log(folder))
    result["seconds_of_last_start"] = round(time.monotonic() - started)
    result["setting"] = describe_setting()
    for state in (folder / "training").glob("state-*"):
        shutil.rmtree(state)  # the optimizer's moments, which only an unfinished run needs
    return result


def _measured(claim: Claim, checkpoint: Path, places: Places, progress: Progress) -> dict[str, Any]:
    if claim.task == "sst2":
        return measure_classifier(checkpoint, places, progress=progress)
    if claim.task == "stsb":
        return measure_regression(checkpoint, places, progress=progress)
    if claim.search:
        return measure_language_model(checkpoint, places, split="valid", most=SEARCH_WINDOWS, progress=progress)
    return measure_language_model(checkpoint, places, split="test", progress=progress)
