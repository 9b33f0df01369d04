"""Options of recipes that train, which ``compress`` and ``deploy`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_PANEL = "Recipes that train"

TrainData = Annotated[
    str | None,
    typer.Option(
        help="Data to train on: .tsv, .csv, .jsonl or text file, or a data set of the hub (name:configuration:split).",
        rich_help_panel=_PANEL,
    ),
]
EvalData = Annotated[
    str | None,
    typer.Option(help="Held-out data; the best model on them is kept.", rich_help_panel=_PANEL),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Folder or hub name of the model to learn from. Default: the source.", rich_help_panel=_PANEL
    ),
]
Epochs = Annotated[
    float | None, typer.Option(help="Passes over the data, instead of the recipe's.", rich_help_panel=_PANEL)
]
Budget = Annotated[
    str | None,
    typer.Option(help="One of the recipe's named budgets, such as A, B or C.", rich_help_panel=_PANEL),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the training. Default: 0.", rich_help_panel=_PANEL)]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with an interrupted training.", rich_help_panel=_PANEL),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        help="Training checkpoint to start from instead of the source's weights: folder of a training or of its stage.",
        rich_help_panel=_PANEL,
    ),
]
PretrainData = Annotated[
    str | None,
    typer.Option(
        help="Texts without labels to learn from before the task: a text file, or data with a column of texts.",
        rich_help_panel=_PANEL,
    ),
]
AugmentModel = Annotated[
    str | None,
    typer.Option(
        help="Masked language model for recipes that augment with one: folder or hub name.",
        rich_help_panel=_PANEL,
    ),
]
TrainingFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the training's checkpoints and log. Default: OUT-training, beside OUT.",
        rich_help_panel=_PANEL,
    ),
]


CalibrationData = Annotated[
    Path | None,
    typer.Option(
        help="Texts without labels (.txt, .tsv, .jsonl) for recipes that calibrate. Default: a small set of texts in "
        "many languages that comes with edgeq.",
    ),
]


def request(**options: Any) -> Any:
    """Makes a training request of options by name; None if none of them was given."""
    from edgeq.recipes import request_of

    return request_of({name: value for name, value in options.items() if value is not False})
