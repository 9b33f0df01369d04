"""README and site: short, current, without broken links, and without a command that does not exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main

import edgeq.cli.main  # noqa: F401  # registers the verbs
from edgeq.cli.verb import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = typer.main.get_command(app).commands


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_short_and_tells_of_no_goals():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert not re.search(r"\b(missed|wanted|aim|goal)\b", text)


def test_what_the_readme_says_is_supported_is_current():
    text = (ROOT / "README.md").read_text()
    assert text == load("supported").with_section(text), "run: python docs/supported.py"


def test_the_published_schemas_are_current():
    schemas = load("schemas")
    found = {file.name: file.read_text() for file in schemas.FOLDER.iterdir()}
    assert found == schemas.files(), "run: python docs/schemas.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page}: {target}"


def commands_of(page):
    text = page.read_text().replace("\\\n", " ")
    return re.findall(r"^\$ edgeq (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_options(page):
    for line in commands_of(page):
        verb, *words = shlex.split(line, comments=True)
        known = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in known, f"{page.name}: edgeq {verb} has no {word}"


def test_every_verb_is_on_the_page_of_the_command_line(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = load("hooks").command_line()
    assert set(re.findall(r"^### edgeq (\S+)", page, re.MULTILINE)) == set(COMMANDS)
    assert "| `--recipe, -r` |" in page
