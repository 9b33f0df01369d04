"""The training inside a run of deploy: what its result depends on, and where it keeps its checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeq.deploy.state import digest, fingerprint_source
from edgeq.reading import sha256
from edgeq.recipes import TrainingRequest
from edgeq.training import training_checkpoint

_SETTINGS = ("task", "epochs", "budget", "seed")
_DATA = ("train_data", "eval_data", "pretrain_data")
_MODELS = ("teacher", "augment_model")


def training_parameters(request: TrainingRequest | None) -> dict[str, Any]:
    """Returns what a training depends on besides source and recipe, as JSON values; empty without one."""
    if request is None:
        return {}
    settings = {name: getattr(request, name) for name in _SETTINGS}
    data = {name: _fingerprint(getattr(request, name)) for name in _DATA}
    models = {name: getattr(request, name) for name in _MODELS}
    prints = {name: None if value is None else fingerprint_source(str(value)) for name, value in models.items()}
    start = {} if request.start_from is None else {"start_from": sha256(training_checkpoint(request.start_from))}
    return {"training": settings | data | prints | start}


def placed(request: TrainingRequest | None, run: Path, *, parameters: dict[str, Any]) -> TrainingRequest | None:
    """Gives a training its folder in a run.

    A run of deploy always goes on where it was stopped, and so does its training; what depends on something else is
    another training, in another folder.

    Args:
        request: What the user asked for.
        run: The run's folder.
        parameters: Everything that the training's result depends on.
    """
    if request is None:
        return None
    return dataclasses.replace(request, folder=run / training_folder_name(parameters), resume=True)


def training_folder_name(parameters: dict[str, Any]) -> str:
    """Returns the name of the folder of a training that depends on ``parameters``, inside the run's folder."""
    return f"training-{digest(parameters)[:12]}"


def _fingerprint(data: str | Path | None) -> str | None:
    """Digest of a file, or of the name of a data set of a hub."""
    if data is None:
        return None
    return sha256(Path(data)) if Path(data).is_file() else digest({"name": str(data)})
