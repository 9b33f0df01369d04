"""What all verbs share: options, exit codes, and errors of one sentence."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_type_hints

import typer

from edgeq.cli.groups import EPILOG, OrderedVerbs, group_of
from edgeq.errors import EdgeqError, printable

app = typer.Typer(
    name="edgeq",
    help="Compress BERT, GPT-2 and BART models, compile them for CPUs, and prove that the result is the same model.",
    cls=OrderedVerbs,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # errors are reported below, in one sentence
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Force = Annotated[
    bool, typer.Option("--force", help="Erase and replace the output, even if this verb did not write it.")
]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_INTERRUPTED = (
    "edgeq: interrupted; no half-written output is left, and what was finished is kept: the same command continues "
    "(a training of 'edgeq compress' needs --resume)"
)
INTERRUPTED = 130
"""The shell's exit code for a program that Ctrl-C ended."""


def verb(name: str, *, example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a verb; it gains ``--debug``, an example in its help, and error reporting.

    A parameter whose type is a dataclass stands for the options that the fields of the class are, for options that
    several verbs share.

    Args:
        name: What the user types after ``edgeq``.
        example: Command lines for the help, without the leading ``edgeq``, one a line.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        groups: dict[str, Any] = {
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if dataclasses.is_dataclass(parameter.annotation)
        }

        @functools.wraps(function)
        def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
            for name, group in groups.items():
                kwargs[name] = group(**{field.name: kwargs.pop(field.name) for field in dataclasses.fields(group)})
            try:
                function(*args, **kwargs)
            except typer.Exit:
                raise
            except (Exception, KeyboardInterrupt) as error:
                raise typer.Exit(report_error(error, debug=debug)) from None

        debug_option = inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Debug
        )
        parameters = [*_without_groups(signature), debug_option]
        for parameter in parameters:
            _show_no_type_of_flag(parameter)
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        lines = "\n".join(f"edgeq {line}" for line in example.splitlines())
        help_text = f"{inspect.getdoc(function)}\n\n[bold]Example[/bold]\n\n\b\n{lines}"
        app.command(name, help=help_text, rich_help_panel=group_of(name))(run)
        return function

    return register


def _without_groups(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    """Yields the parameters, for a dataclass its fields."""
    for parameter in signature.parameters.values():
        if not dataclasses.is_dataclass(parameter.annotation):
            yield parameter
            continue
        types = get_type_hints(parameter.annotation, include_extras=True)
        for field in dataclasses.fields(parameter.annotation):
            yield parameter.replace(name=field.name, default=field.default, annotation=types[field.name])


def _show_no_type_of_flag(parameter: inspect.Parameter) -> None:
    """Keeps typer from writing ``<bool>`` behind an option that takes no value."""
    kind, *settings = get_args(parameter.annotation)
    if kind in (bool, bool | None):
        for setting in settings:
            setting.metavar = ""


def report_error(error: BaseException, *, debug: bool) -> int:
    """Prints what went wrong to stderr and returns the exit code for it."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print(_INTERRUPTED, file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    if isinstance(error, EdgeqError):
        print(f"edgeq: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has enough; Python would complain once more while closing stdout.
        sys.stdout = None
        return 1
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        print(f"edgeq: {printable(f'{place}{error.strerror or error}')}", file=sys.stderr)  # noqa: T201
        return 1
    reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    print(f"edgeq: internal error ({reason}); run again with --debug and report it", file=sys.stderr)  # noqa: T201
    return 1
