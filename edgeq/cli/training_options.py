"""Options of recipes that train or calibrate, which several verbs share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgeq.recipes import TrainingRequest

_PANEL = "Recipes that train"


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_PANEL)


EvalData = Annotated[str | None, _option("Held-out data; the model that is best on it is kept.")]
TrainingFolder = Annotated[
    Path | None, _option("Folder for the training's checkpoints and log. Default: OUT-training, beside OUT.")
]
CalibrationData = Annotated[
    Path | None,
    typer.Option(
        help="Texts without labels (.txt, .tsv, .jsonl) for recipes that calibrate. Default: a small set of texts in "
        "many languages that comes with edgeq.",
    ),
]


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of ``compress`` and ``deploy``; the fields are those of :class:`edgeq.recipes.TrainingRequest`."""

    train_data: Annotated[
        str | None,
        _option(
            "Data to train on: .tsv, .csv, .jsonl or text file, or a dataset on the hub (name:configuration:split)."
        ),
    ] = None
    teacher: Annotated[
        str | None, _option("Folder or hub name of the model to learn from. Default: the source.")
    ] = None
    epochs: Annotated[float | None, _option("Passes over the training data. Default: the recipe's.")] = None
    budget: Annotated[str | None, _option("One of the recipe's named budgets, such as A, B or C.")] = None
    seed: Annotated[int | None, _option("Seed of the training. Default: 0.")] = None
    resume: Annotated[bool, _option("Continue an interrupted training.", "--resume")] = False
    start_from: Annotated[
        Path | None,
        _option(
            "Training checkpoint to start from instead of the source's weights: folder of a training or a phase."
        ),
    ] = None
    pretrain_data: Annotated[
        str | None,
        _option("Texts without labels to train on before the task: a text file, or data with a column of texts."),
    ] = None
    augment_model: Annotated[
        str | None, _option("Masked language model for recipes that augment data with one: folder or hub name.")
    ] = None

    def request(
        self, *, eval_data: str | Path | None, folder: str | Path | None = None
    ) -> TrainingRequest | None:
        """Makes the request; None if nothing was given.

        Raises:
            UsageError: If something was asked of a training without giving it data.
        """
        from edgeq.recipes import request_of

        return request_of(vars(self) | {"resume": self.resume or None, "eval_data": eval_data, "folder": folder})
