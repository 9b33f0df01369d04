"""What a user gives to a recipe that trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.recipes.schema import Recipe
from edgeq.training import TaskName
from edgeq.training.unlabelled import SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Data and options for a training.

    Attributes:
        train_data: A file, or a data set of the hub as ``name`` or ``name:configuration``.
        eval_data: The same, held out; None evaluates nothing, and the last weights are the result.
        task: What the model learns; None is what it is made for.
        teacher: Folder or hub name of the teacher; None is the source itself.
        epochs: Passes over the data instead of the recipe's.
        budget: Name of one of the recipe's budgets instead.
        seed: Of the run.
        resume: Go on with an interrupted run.
        start_from: Training checkpoint whose latent weights the student starts from, instead of the source's: the
            folder of a finished training, or one of its ``stage-...`` folders.
        pretrain_data: Texts to pre-train on before the task: a text file, or data with a column of texts.
        augment_model: Folder or hub name of a masked language model, for recipes that ask it for other words.
        folder: Where the run keeps its checkpoints and its log; None is beside the output, named after it.
    """

    train_data: str | Path
    eval_data: str | Path | None = None
    task: TaskName | None = None
    teacher: str | Path | None = None
    epochs: float | None = None
    budget: str | None = None
    seed: int = 0
    resume: bool = False
    start_from: str | Path | None = None
    pretrain_data: str | Path | None = None
    augment_model: str | Path | None = None
    folder: str | Path | None = None


def check_request(recipe: Recipe, request: TrainingRequest | None) -> None:
    """Checks that a recipe gets what it needs, and nothing that it cannot use.

    Raises:
        UsageError: If it does not.
    """
    if request is None:
        if recipe.trains:
            raise UsageError(
                f"recipe {recipe.name!r} trains, which needs data: give --train-data FILE and, to choose the best "
                "model, --eval-data FILE"
            )
        return
    if not recipe.trains:
        raise UsageError(f"recipe {recipe.name!r} does not train; leave the training options out")
    wants_model = recipe.augment is not None and recipe.augment.source == "masked-lm"
    if wants_model and any(stage.augment for stage in recipe.stage) and request.augment_model is None:
        raise UsageError(
            f"recipe {recipe.name!r} takes other words from a masked language model: give --augment-model FOLDER, or "
            'set augment.source = "embeddings"'
        )


def check_calibration_data(recipe: Recipe, data: str | Path | None) -> None:
    """Checks that calibration texts are there, and for a recipe that reads them.

    Raises:
        UsageError: If they are not.
    """
    if data is None:
        return
    if not recipe.calibrates:
        raise UsageError(
            f"recipe {recipe.name!r} does not calibrate; leave --calibration-data out, or take a recipe with "
            "[calibrate], such as calibrated-w4a8"
        )
    if Path(data).suffix not in SUFFIXES or not Path(data).is_file():
        known = ", ".join(SUFFIXES)
        raise UsageError(f"calibration data are a file that ends in {known}; there is no such file {data}")


def request_of(options: dict[str, Any]) -> TrainingRequest | None:
    """Makes a request of options by name, those of value None being left out; None if all are.

    Raises:
        UsageError: If something was asked of a training without giving it data.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return None
    if "train_data" not in given:
        first = next(iter(given)).replace("_", "-")
        first = "training-folder" if first == "folder" else first
        raise UsageError(f"--{first} is for training, which needs data: give --train-data FILE too")
    return TrainingRequest(**given)
