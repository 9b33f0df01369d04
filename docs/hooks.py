"""Pages of the site that are made when it is built: the command line, what is supported, and included READMEs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import supported

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"<!-- include: (\S+) -->")
CLI_MARK, SUPPORTED_MARK = "<!-- generated: command line -->", "<!-- generated: supported -->"


def command_line() -> str:
    """Returns the help of every verb, grouped as ``edgeq --help`` groups them."""
    import typer.main

    import edgeq.cli.main  # noqa: F401  # registers the verbs
    from edgeq.cli.groups import GROUPS
    from edgeq.cli.verb import app

    commands = typer.main.get_command(app).commands
    parts = []
    for group, verbs in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_verb(commands[verb]) for verb in verbs if verb in commands]
    return "\n".join(parts)


def _verb(command: Any) -> str:
    text, _, example = command.help.partition("[bold]Example[/bold]")
    lines = [f"### edgeq {command.name}\n", text.strip(), "\n```console"]
    lines += [f"$ {line}" for line in example.replace("\b", "").strip().splitlines()]
    lines += ["```\n", "| argument or option | meaning |", "|---|---|"]
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        names = (parameter.metavar or parameter.name.upper()) if is_argument else ", ".join(parameter.opts)
        if names == "--help, -h":
            continue
        meaning = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
        lines.append(f"| `{names}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _included(match: re.Match[str]) -> str:
    """A header as code, or a README without its title; its links lead to files that are not part of the site."""
    text = (ROOT / match[1]).read_text(encoding="utf-8")
    if match[1].endswith(".h"):
        return f"```c\n{text}```"
    text = text.partition("\n")[2]
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills the marks of a page; called by mkdocs."""
    markdown = INCLUDE.sub(_included, markdown)
    if CLI_MARK in markdown:
        markdown = markdown.replace(CLI_MARK, command_line())
    return markdown.replace(SUPPORTED_MARK, supported.section()) if SUPPORTED_MARK in markdown else markdown
