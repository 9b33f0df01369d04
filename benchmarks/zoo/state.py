"""Training states on disk: safetensors and JSON, each state a folder that appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.zoo.average import WeightAverage
from edgeq.errors import FormatError
from edgeq.files import made_of, new_folder

_MOMENTS = ("exp_avg", "exp_avg_sq")


def _states(run: Path) -> list[Path]:
    return sorted(run.glob("state-*"), key=lambda folder: int(folder.name.removeprefix("state-")))


def save_state(
    run: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: WeightAverage | None = None,
    step: int,
    progress: dict[str, Any],
) -> None:
    """Writes the state after ``step`` steps as ``run/state-<step>`` and drops the states before it.

    A new name for each state, because replacing a folder takes two renames: killed between them, the run
    would have no state at all.

    Args:
        run: Folder of the run.
        model: The model; its parameters are saved in float32, a tied one once.
        optimizer: An AdamW over those parameters.
        average: The moving average of the parameters, if there is one.
        step: Steps done.
        progress: What else the loop needs to go on; anything that JSON holds.
    """
    tensors = {"rng": torch.get_rng_state()}
    for name, parameter in model.named_parameters():
        tensors[f"parameter.{name}"] = parameter.detach()
        if average is not None:
            tensors[f"average.{name}"] = average.values[name]
        for moment in _MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    earlier = _states(run)
    with new_folder(run / f"state-{step}", made_of("zoo", "state.safetensors", "state.json")) as folder:
        save_file(tensors, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": step, **progress}), encoding="utf-8")
    for folder in earlier:
        if folder.name != f"state-{step}":
            shutil.rmtree(folder)


def load_state(
    run: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, average: WeightAverage | None = None
) -> dict[str, Any] | None:
    """Restores the newest state into ``model``, ``optimizer``, ``average`` and torch's random generator.

    Returns:
        The saved ``progress`` and ``step``; None if the run has no state yet.

    Raises:
        FormatError: If the state is of another model, or has no average where one is asked for.
    """
    states = _states(run)
    if not states:
        return None
    progress: dict[str, Any] = json.loads((states[-1] / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(states[-1] / "state.safetensors")
    for name, parameter in model.named_parameters():
        saved = tensors.get(f"parameter.{name}")
        if saved is None or saved.shape != parameter.shape:
            wanted = f"{name} of shape {tuple(parameter.shape)}"
            raise FormatError(f"{states[-1]} holds no parameter {wanted}; give a new folder as --out")
        parameter.data.copy_(saved)
        if average is not None:
            if f"average.{name}" not in tensors:
                raise FormatError(f"{states[-1]} holds no average of {name}; give a new folder as --out")
            average.values[name].copy_(tensors[f"average.{name}"])
        moments = {key: tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in tensors}
        if moments:
            optimizer.state[parameter] = {"step": torch.tensor(float(progress["step"])), **moments}
    torch.set_rng_state(tensors["rng"])
    return progress
