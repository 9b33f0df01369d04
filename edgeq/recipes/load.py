"""Reads recipe files, and says precisely what is wrong with them."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pydantic

from edgeq.errors import FormatError, UsageError, nearest_name_hint
from edgeq.plugins import RECIPES, settings_files
from edgeq.reading import read_text
from edgeq.recipes.schema import Recipe

_LARGEST = 1 << 20
"""Bytes of a recipe file."""


@dataclasses.dataclass(frozen=True)
class RecipeSummary:
    """A built-in recipe and its meaning in one line.

    Attributes:
        name: Its name.
        summary: Its meaning.
        trains: Whether it needs training data.
        bits: What the letters of its name stand for: bits of weights, embedding tables and activations.
    """

    name: str
    summary: str
    trains: bool
    bits: str


def list_recipes() -> list[RecipeSummary]:
    """Returns the built-in recipes in alphabetical order."""
    recipes = [load_recipe(name) for name in _builtin_names()]
    return [RecipeSummary(recipe.name, recipe.summary, recipe.trains, decoded_bits(recipe)) for recipe in recipes]


def decoded_bits(recipe: Recipe) -> str:
    """Says in words what ``w2e2a8`` in a recipe's name says: such as ``weights 2, embeddings 2, activations 8``."""
    activations = "float" if recipe.activations.mode == "none" or not recipe.weights.bits else "8"
    parts = {"weights": recipe.weights.bits or "float", "embeddings": recipe.embeddings.bits or "float"}
    return ", ".join(f"{name} {bits}" for name, bits in {**parts, "activations": activations}.items())


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Loads a built-in recipe by name, or a recipe file by path.

    Args:
        name_or_path: A name that :func:`list_recipes` gives, or a path that ends in ``.toml``.

    Raises:
        UsageError: If there is no such recipe, or the file says something a recipe cannot say.
    """
    content, where = _content(name_or_path, above=())
    try:
        return Recipe.model_validate(_immutable(content))
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_first_problem(error)}") from None


def _content(name_or_path: str | Path, *, above: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Returns what a recipe says together with the recipe that it extends, and what to call it in complaints."""
    name = str(name_or_path)
    folder: Path | None = None
    if isinstance(name_or_path, Path) or name.endswith(".toml"):
        folder = Path(name_or_path).parent
        content, where = _parse(_read(Path(name_or_path)), where=name), name
    else:
        content, where = _parse(_builtin_text(name), where=f"built-in recipe {name}"), f"built-in recipe {name}"
    vocabulary = content.get("vocabulary")
    if folder is not None and isinstance(vocabulary, dict) and isinstance(vocabulary.get("keep"), str):
        vocabulary["keep"] = str(folder / vocabulary["keep"])
    base = content.pop("extends", None)
    if base is None:
        return content, where
    if not isinstance(base, str):
        raise UsageError(f"{where}: extends should name a recipe, found {base!r}")
    # A path is meant from the file's own folder, so that a pair of files can be moved together.
    wanted = str(folder / base) if folder is not None and base.endswith(".toml") else base
    if wanted in above:
        raise UsageError(f"{where}: recipes extend each other in a circle: {', '.join([*above, wanted])}")
    return _merged(_content(wanted, above=(*above, wanted))[0], content), where


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Tables are joined key by key; anything else, lists included, is replaced."""
    both = {
        key: _merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | changes | both


def _builtin_text(name: str) -> str:
    names = _builtin_names()
    if name not in names:
        hint = nearest_name_hint(name, names)
        raise UsageError(
            f"there is no recipe {name!r}{hint} (known: {', '.join(names)}; or give a .toml file)"
        )
    return _builtin()[name].read_text(encoding="utf-8")


def _builtin_names() -> list[str]:
    return sorted(_builtin())


def _builtin() -> dict[str, Traversable]:
    """Recipes that have a name: edgeq's own, and those of other packages."""
    return settings_files(RECIPES, resources.files("edgeq.recipes").joinpath("builtin"))


def _read(path: Path) -> str:
    try:
        return read_text(path, largest=_LARGEST)
    except (FormatError, UsageError) as error:
        raise UsageError(f"recipe file {error}") from None


def _parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}") from None


def _immutable(value: Any) -> Any:
    """TOML has arrays only; the schema has tuples."""
    if isinstance(value, dict):
        return {key: _immutable(entry) for key, entry in value.items()}
    return tuple(_immutable(entry) for entry in value) if isinstance(value, list) else value


def _first_problem(error: pydantic.ValidationError) -> str:
    # An unknown key comes first: a missing key is then often only the other half of a misspelling.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest_name_hint(location[-1], known) or f"; known keys are {', '.join(known)}"
        return f"unknown key {'.'.join(location)!r}{hint}"
    if problem["type"] == "missing":
        return f"key {'.'.join(location)!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f", found {problem['input']!r}"
    return f"{'.'.join(location) or 'recipe'}: {message}{found}"


def _known_keys(section: list[str]) -> list[str]:
    fields: Any = Recipe.model_fields
    for part in section:
        if part.isdigit():
            continue
        annotation = fields[part].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))  # a section, or a tuple of sections
        fields = next(c.model_fields for c in candidates if hasattr(c, "model_fields"))
    return list(fields)
