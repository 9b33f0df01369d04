"""Entry point of the ``edgeq`` command."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Annotated

import typer

import edgeq
from edgeq.cli.groups import GROUPS
from edgeq.cli.verb import app
from edgeq.errors import printable


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeq {edgeq.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Compress BERT, GPT-2 and BART models, compile them for CPUs, and prove that the result is the same model."""


# Each verb has a module of its name, which registers it when it is imported, and imports what is heavy (torch, onnx,
# tvm) only when the verb runs.
for _verb in (verb.replace("-", "_") for verbs in GROUPS.values() for verb in verbs):
    if importlib.util.find_spec(f"edgeq.cli.{_verb}") is not None:
        importlib.import_module(f"edgeq.cli.{_verb}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0 success, 1 failure, 2 wrong usage.

    Args:
        arguments: Words after ``edgeq``; those of the process if None.
    """
    # Fast tokenizers warn about forks that edgeq makes on purpose (compilers, emulators).
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(arguments, prog_name="edgeq", standalone_mode=False)
    except typer.Abort:
        return 1
    except Exception as error:
        # Typer's own usage errors; the class moved between versions, the method did not.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "edgeq"
        sentence = " ".join(error.format_message().split())
        if not sentence:  # `edgeq` alone: the help has been printed
            return 2
        print(f"edgeq: {printable(sentence)} (see {command} --help)", file=sys.stderr)  # noqa: T201
        return 2
    return code if isinstance(code, int) else 0
