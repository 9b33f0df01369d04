"""The folder of a training: its identity, the newest state, and the weights that each stage ends with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeq.errors import UsageError
from edgeq.files import made_of, new_folder, remove_leftovers, write_json
from edgeq.formats.json_file import read_json_object
from edgeq.formats.tensor_header import read_tensor_header
from edgeq.quant.trainable_layers import TrainableLayer
from edgeq.results import SavedProgress, TrainingResult, TrainingRun
from edgeq.results.base import plain, validated
from edgeq.training.outcome import RESULT_FILE
from edgeq.training.tensors import load_tensors, load_weights, low_bit_layers, save_tensors

_RUN = "run.json"
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_OBJECTIVE = "objective.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE = made_of("compress", _WEIGHTS, _OPTIMIZER, _OBJECTIVE, "state.json")
_STAGE = made_of("compress", _WEIGHTS, "record.json")


class TrainingFolder:
    """A folder that a training writes, and can be killed in at any moment.

    It holds ``run.json`` (what is trained on what), ``log.jsonl``, the newest ``state-<step>`` (weights,
    optimizer, place in the data), and ``stage-<name>`` (the weights a stage ends with; while it runs, its best
    so far). Each part appears whole or not at all.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.log_file = self.path / "log.jsonl"

    def open(self, identity: TrainingRun, *, resume: bool) -> None:
        """Begins a training, or makes sure that the one to be resumed is the same.

        Args:
            identity: What decides the result: settings, data, losses.
            resume: Whether a training that is there is gone on with.

        Raises:
            UsageError: If there is a training and ``resume`` is not asked for, or it is another training.
            FormatError: If the training's files are damaged.
        """
        file = self.path / _RUN
        if not file.exists():
            if self.path.exists() and not self._holds_nothing_of_others():
                raise UsageError(f"{self.path} holds something else than a training; give another folder")
            identity.write(file)
            return
        if not resume:
            raise UsageError(f"{self.path} holds a training; resume it, or give another folder")
        before = TrainingRun.read(file).to_json()
        now = json.loads(json.dumps(identity.to_json()))
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise UsageError(
                    f"{file}: the training to be resumed has another {name.replace('_', ' ')} "
                    f"({_difference(before.get(name), now.get(name))}); "
                    "resume with what it began with, or give another folder"
                )
        remove_leftovers(self.path, r"state-\d+", r"stage-[^/]+")

    def save_state(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: dict[str, torch.Tensor],
        progress: SavedProgress,
    ) -> None:
        """Writes the state after ``progress.step`` steps, and drops the ones before it.

        Each state has a name of its own, because replacing a folder takes two renames: killed between them,
        the training would have no state at all.

        Args:
            model: The student, in the form it has in this stage.
            optimizer: Its optimizer, an AdamW.
            objective: What losses remember, by name.
            progress: What else the training needs to go on.
        """
        earlier = self._states()
        with new_folder(self.path / f"state-{progress.step}", _STATE) as folder:
            save_tensors(folder / _WEIGHTS, model.state_dict())
            save_tensors(folder / _OPTIMIZER, _moments(model, optimizer))
            if objective:
                save_tensors(folder / _OBJECTIVE, objective)
            write_json(folder / "state.json", plain(progress), indent=None)
        for folder in earlier:
            if folder.name != f"state-{progress.step}":
                shutil.rmtree(folder)

    def newest_state(self) -> Path | None:
        """Returns the folder of the newest state; None before the first one."""
        states = self._states()
        return states[-1] if states else None

    def read_progress(self, state: Path) -> SavedProgress:
        """Returns the ``progress`` of a state.

        Raises:
            FormatError: If it is damaged.
        """
        file = state / "state.json"
        return validated(SavedProgress, read_json_object(file), where=str(file), fix="train again in another folder")

    def load_model(self, state: Path, model: nn.Module) -> None:
        """Puts the weights and quantizers of a state into ``model``, which has the form of the state's stage."""
        load_weights(model, state / _WEIGHTS, quantizers=True)

    def load_optimizer(self, state: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Puts the moments of a state into ``optimizer``."""
        saved = load_tensors(state / _OPTIMIZER)
        for name, parameter in model.named_parameters():
            if f"{name}.step" in saved:
                optimizer.state[parameter] = {
                    "step": saved[f"{name}.step"].to(parameter.device),
                    **{key: saved[f"{name}.{key}"].to(parameter.device) for key in _MOMENTS},
                }

    def load_objective(self, state: Path) -> dict[str, torch.Tensor]:
        """Returns what losses remembered; empty if nothing."""
        return load_tensors(state / _OBJECTIVE) if (state / _OBJECTIVE).is_file() else {}

    def save_stage(self, name: str, model: nn.Module, *, step: int) -> None:
        """Writes the weights that a stage ends with, if it ends here: those after ``step`` steps of all stages."""
        with new_folder(self.stage_weights(name).parent, _STAGE) as folder:
            save_tensors(folder / _WEIGHTS, model.state_dict())
            write_json(folder / "record.json", {"step": step}, indent=None)

    def stage_weights(self, name: str) -> Path:
        """Returns the file of the weights that a stage ends with."""
        return self.path / f"stage-{name}" / _WEIGHTS

    def _holds_nothing_of_others(self) -> bool:
        """Whether it is a folder with nothing but what a killed training leaves of its first file."""
        return self.path.is_dir() and all(path.match(f".{_RUN}.*") for path in self.path.iterdir())

    def _states(self) -> list[Path]:
        found = [folder for folder in self.path.glob("state-*") if folder.name[6:].isdigit()]
        return sorted(found, key=lambda folder: int(folder.name[6:]))


def training_checkpoint(path: Path | str) -> Path:
    """Returns the weights that a later training or recipe starts from.

    Args:
        path: Folder of a training, which stands for the weights of its last finished stage; one of its ``stage-...``
            or ``state-...`` folders; or a weight file.

    Raises:
        UsageError: If there is no such checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return path
    if (path / _WEIGHTS).is_file():
        return path / _WEIGHTS
    if (path / RESULT_FILE).is_file():
        return path / TrainingResult.read(path / RESULT_FILE).weights
    raise UsageError(f"{path} is no training checkpoint, or its training is not finished; give one of its folders")


def start_from(model: nn.Module, path: Path | str, *, quantizers: bool = False) -> None:
    """Puts the latent weights of a training checkpoint into ``model``; its quantizers start anew from them.

    Args:
        model: The student of a new training: in its training form for the checkpoint of a quantized training, which may
            be of other bits and methods; float for that of a float training.
        path: What :func:`training_checkpoint` takes.
        quantizers: Take the state of the quantizers as well; the two models then need the same quantizers.

    Raises:
        UsageError: If there is no such checkpoint, or it is of another model.
        FormatError: If it is damaged.
    """
    load_weights(model, training_checkpoint(path), quantizers=quantizers)
    for layer in model.modules():
        if isinstance(layer, TrainableLayer) and not quantizers:
            layer.quantizer.initialise(layer.weight)


def is_quantized_checkpoint(path: Path | str) -> bool:
    """Tells whether a training checkpoint is of a quantized training.

    Raises:
        UsageError: If there is no such checkpoint.
        FormatError: If it is damaged.
    """
    return bool(low_bit_layers(read_tensor_header(training_checkpoint(path))))


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}.{key}"] = value
    return tensors


def _difference(before: Any, now: Any) -> str:
    """Names the first value in which two settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                return f"{name}: {_difference(before.get(name), now.get(name))}"
    return f"{before!r}, not {now!r}"
