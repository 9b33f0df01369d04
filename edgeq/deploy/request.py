"""What a user asks of the main job."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.results import Gates

if TYPE_CHECKING:
    from edgeq.recipes import Recipe, TrainingRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployRequest:
    """Source, recipe, targets and options of a run; nothing of it is checked yet.

    Attributes:
        source: Folder of a float checkpoint, or a hub name.
        recipe: A recipe, the name of a built-in one, or a ``.toml`` file.
        task: What to make of the model, by ``transformers``' name; None takes what it was made for.
        training: Data and options, for recipes that train. The training goes on where it was stopped, in a folder
            ``training-...`` of the run.
        calibration_data: Texts without labels, for recipes that calibrate; None for those that come with edgeq.
        targets: Names of targets or ``.toml`` files; one bundle each.
        name: What reports call the model; the last part of ``source`` if None.
        eval_data: Examples to measure the task on, or a text for the perplexity of a model that generates text;
            without them the report says that nothing was measured.
        gates: Limits of loss, bytes and latency; a run that breaks one has not passed, and its report says so.
        opset: ONNX opset; the exporter's default if None.
        cache: Type of the key/value cache of models that generate text: ``float16``, ``float32`` or ``int8``.
        context: For models that generate text: most tokens of a sequence, prompt included; as many as the model has
            positions if None.
        rounds: Rounds of the profile.
        sequence: Tokens of a text in the profile; 128, or as many as the model takes, if None.
        threads: Threads of bundle and baselines in the profile.
        force: Write into the run's folder whatever it holds, and replace what has the name of an output.
    """

    source: str | Path
    recipe: str | Path | Recipe
    task: str | None = None
    training: TrainingRequest | None = None
    calibration_data: str | Path | None = None
    targets: Sequence[str] = ("host",)
    name: str | None = None
    eval_data: str | Path | None = None
    gates: Gates = dataclasses.field(default_factory=Gates)
    opset: int | None = None
    cache: str = "float16"
    context: int | None = None
    rounds: int = 20
    sequence: int | None = None
    threads: int = 2
    force: bool = False
