"""What a run is to do: a request, checked before anything is written."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.checkpoint import read_adapter
from edgeq.deploy.request import DeployRequest
from edgeq.deploy.size_check import check_planned_size
from edgeq.deploy.state import fingerprint_source
from edgeq.deploy.taken import taken_from
from edgeq.deploy.training import training_folder_name, training_parameters
from edgeq.doctor import diagnose
from edgeq.errors import UnsupportedError, UsageError
from edgeq.evaluate.data import TextFile, read_text_file
from edgeq.evaluate.evaluation import EvaluationData
from edgeq.evaluate.kinds import read_evaluation_data
from edgeq.export.exporter import check_cache
from edgeq.export.trace import check_opset
from edgeq.formats.tasks import GENERATING
from edgeq.hub import resolve_source
from edgeq.reading import sha256
from edgeq.recipes import Recipe, check_calibration_data, check_request, default_texts, load_recipe
from edgeq.results import About, RecipeOfRun, Taken, TargetOfRun
from edgeq.targets.builtin.target import Target, check_takes_bundles, load_target
from edgeq.targets.bundle.model_info import read_model_info
from edgeq.targets.runtime.machine import this_machine

HOST = "host"
"""Name of the target made from this machine's processor."""
_TABLES = (".tsv", ".csv", ".jsonl")
_SEQUENCE = 128
"""Tokens of a text in the profile, unless the model takes fewer or the user says otherwise."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked request: the stages ask it, and read nothing again that it has read.

    Attributes:
        request: What the user asked for.
        name: What reports call the model.
        folder: The float checkpoint's folder.
        recipe: The recipe.
        targets: Targets by name, in the user's order.
        data: Examples for the task stage, or None.
        text: A text for the task stage of a model that generates text, or None.
        sequence: Tokens of a text in the profile.
        taken: What the model's folder says beside the weights, and where.
    """

    request: DeployRequest
    name: str
    folder: Path
    recipe: Recipe
    targets: dict[str, Target]
    data: EvaluationData | None
    text: TextFile | None
    sequence: int
    taken: tuple[Taken, ...]

    @functools.cached_property
    def native(self) -> list[str]:
        """Names of the targets whose bundles run on this machine."""
        machine = this_machine()
        return [name for name, target in self.targets.items() if target.runs_on(machine)]

    @functools.cached_property
    def source_digest(self) -> str:
        """Digest of the float checkpoint; its files are read once, whatever asks."""
        return fingerprint_source(str(self.folder))

    @functools.cached_property
    def data_digest(self) -> str | None:
        """SHA-256 of the examples or the text of the task stage; None without them."""
        measured_on = self.data or self.text
        return None if measured_on is None else sha256(measured_on.path)

    @functools.cached_property
    def compression(self) -> dict[str, Any]:
        """What the compressed checkpoint depends on, as JSON values."""
        asked = {} if self.request.task is None else {"task": self.request.task}
        texts = self.request.calibration_data or (default_texts() if self.recipe.calibrates else None)
        calibration = {} if texts is None else {"calibration": sha256(Path(texts))}
        corpus = self.recipe.vocabulary
        vocabulary = {} if corpus is None else {"vocabulary": sha256(Path(corpus.keep))}
        source = {"source": self.source_digest, "recipe": self.recipe.sha256}
        return source | asked | training_parameters(self.request.training) | calibration | vocabulary

    def about(self) -> About:
        """What the run is of, for ``deploy.json`` and the report."""
        request, recipe = self.request, self.recipe
        return About(
            name=self.name,
            source=str(request.source),
            source_folder=str(self.folder.absolute()),
            recipe=RecipeOfRun(recipe.name, recipe.summary, recipe.sha256),
            targets={
                name: TargetOfRun(target.summary, target.isa, target.cpu) for name, target in self.targets.items()
            },
            taken=self.taken,
            task=request.task,
            training=None if request.training is None else training_folder_name(self.compression),
            gates=request.gates if request.gates.any else None,
        )


def make_plan(request: DeployRequest) -> Plan:
    """Checks everything that can be checked without doing the work.

    Raises:
        UsageError: If the source, the recipe, a target or the evaluation file is not there or makes no sense.
        UnsupportedError: If a target's compiler or emulator is missing on this machine.
    """
    targets = _targets(request.targets)
    folder = resolve_source(request.source)
    recipe = request.recipe if isinstance(request.recipe, Recipe) else load_recipe(request.recipe)
    check_request(recipe, request.training)
    check_calibration_data(recipe, request.calibration_data)
    task, sequence = _check_task(folder, request)
    examples = None if task in GENERATING else request.eval_data
    plan = Plan(
        request=request,
        name=request.name or Path(request.source).name or folder.resolve().name,
        folder=folder,
        recipe=recipe,
        targets=targets,
        data=None if examples is None else read_evaluation_data(examples, task),
        text=_text_of(folder, task, request.eval_data, trains=request.training is not None),
        sequence=sequence,
        taken=tuple(taken_from(folder, read_adapter(folder, task=request.task))),
    )
    _check_gates(plan)
    check_planned_size(folder, recipe, limit=request.gates.max_bytes, task=request.task)
    _check_tools(list(request.targets))
    return plan


def _targets(names: Sequence[str]) -> dict[str, Target]:
    if not names:
        raise UsageError("name at least one --target; see 'edgeq targets'")
    chosen: dict[str, Target] = {}
    for name in names:
        target = load_target(name)
        check_takes_bundles(target)
        if target.name in chosen and chosen[target.name] != target:
            raise UsageError(f"two targets are called {target.name!r}; rename one of the files")
        chosen[target.name] = target
    return chosen


def _check_task(folder: Path, request: DeployRequest) -> tuple[str, int]:
    """Refuses before minutes of work what a later stage would refuse.

    Returns:
        What the model is for, and the tokens of a text in the profile: as many as fit it, if nobody says.
    """
    context, sequence = request.context, request.sequence
    adapter = read_adapter(folder, task=request.task)
    writes = adapter.task in GENERATING
    if request.opset is not None:
        check_opset(request.opset, adapter)
    check_cache(request.cache, adapter)
    if context is not None and not writes:
        raise UsageError(
            f"--context is for models that generate text, and {adapter.architecture} does not; leave it out"
        )
    if context is not None and not 1 <= context <= adapter.max_positions:
        raise UsageError(
            f"--context must lie in 1..{adapter.max_positions}, the positions that the model has, found {context}"
        )
    limits = [adapter.max_positions, context, None if writes else read_model_info(folder).max_length]
    longest = min(limit for limit in limits if limit is not None) - writes
    if sequence is not None and sequence > longest:
        what = "before the token that the profile times" if writes else "of a text in the profile"
        raise UsageError(f"{folder} holds at most {longest} tokens {what}; give --sequence {longest} or less")
    return adapter.task, min(_SEQUENCE, longest) if sequence is None else sequence


def _check_gates(plan: Plan) -> None:
    """Refuses limits that nothing will be measured for."""
    gates = plan.request.gates
    if gates.max_loss is not None and plan.data is None and plan.text is None:
        raise UsageError("--max-loss needs examples or a text to measure the loss on: give --eval-data FILE")
    if gates.max_ms is not None and not plan.native:
        listed = ", ".join(plan.targets)
        raise UsageError(
            f"--max-ms needs a target that runs on this machine, found {listed}; add --target host, or measure on the "
            "device with 'edgeq profile --on'"
        )


def _text_of(folder: Path, task: str, eval_data: str | Path | None, *, trains: bool) -> TextFile | None:
    """Returns the text that a model's perplexity is measured on; data of a training may be of other kinds."""
    if eval_data is None or task not in GENERATING:
        return None
    is_text = Path(eval_data).suffix not in _TABLES
    if task == "generate" and is_text and (not trains or Path(eval_data).is_file()):
        return read_text_file(eval_data)
    if trains:
        return None
    if task == "generate":
        raise UsageError(f"{folder} generates text, so --eval-data should be a text file, found the table {eval_data}")
    raise UnsupportedError(
        f"{folder} generates a text from an encoder input, whose quality deploy does not measure: leave --eval-data out"
    )


def _check_tools(targets: list[str]) -> None:
    for finding in diagnose(targets):
        if not finding.ok:
            fix = f"; to fix: {finding.fix_command}" if finding.fix_command else ""
            raise UnsupportedError(f"{finding.name}: {finding.detail}{fix} ('edgeq doctor' lists all of it)")
