"""Command-line options that every training script of the zoo has, and the record of what a run was given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.files import write_text

_RECORD = "run.json"


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that do not depend on the model."""
    shared = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_argument("--data", type=Path, required=True, help="folder with the data sets' folders")
    shared.add_argument("--out", type=Path, required=True, help="folder of the run: log, states, best model")
    shared.add_argument("--seed", type=int, default=1)
    shared.add_argument("--threads", type=int, default=2)
    shared.add_argument("--entries", type=int, default=8192, help="size of the vocabulary")
    shared.add_argument("--warmup", type=int, default=150, help="steps of the rising learning rate")
    shared.add_argument("--decay", type=float, default=0.35, help="part of the steps with a falling rate")
    shared.add_argument("--dropout", type=float, default=0.1)
    shared.add_argument("--validate-every", type=int, default=250, help="steps between validations")
    shared.add_argument("--save-seconds", type=float, default=180.0, help="seconds between saved states")
    return shared


def record_run(module: str, arguments: argparse.Namespace) -> None:
    """Writes ``run.json`` into the run's folder: the module and every option that shapes the model."""
    options = vars(arguments).items()
    given = {name: value for name, value in options if value is not None and not isinstance(value, Path)}
    given.pop("save_seconds")  # it shapes nothing
    write_text(arguments.out / _RECORD, json.dumps({"module": module, "options": given}, indent=1) + "\n")


def command_of(run: Path) -> str:
    """Returns the command that repeats a run, its folders called DATA and RUN.

    Raises:
        UsageError: If the folder holds no ``run.json``.
    """
    file = run / _RECORD
    if not file.is_file():
        raise UsageError(f"{file} does not exist: --run must be the --out folder of a training")
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in record["options"].items())
    return f"python -m {record['module']} --data DATA --out RUN {options}"
