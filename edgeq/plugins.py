"""What other installed packages add to edgeq, found by their entry points.

A package names it in its ``pyproject.toml``::

    [project.entry-points."edgeq.models"]     # a subclass of edgeq.models.ModelAdapter
    my-family = "my_package.adapter:MyAdapter"
    [project.entry-points."edgeq.recipes"]    # a package that holds recipes as .toml files
    mine = "my_package.recipes"
    [project.entry-points."edgeq.targets"]    # a package that holds targets as .toml files
    mine = "my_package.targets"
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.resources
from importlib.resources.abc import Traversable
from typing import Any

from edgeq.errors import UsageError

MODELS, RECIPES, TARGETS = "edgeq.models", "edgeq.recipes", "edgeq.targets"


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One entry point, loaded.

    Attributes:
        value: The object that it names.
        where: What messages call it: the entry point and its package.
    """

    value: Any
    where: str


@functools.cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """Loads the entry points of a group, sorted by name.

    Raises:
        UsageError: If one of them cannot be loaded.
    """
    found = []
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda point: (point.name, point.value)):
        package = point.dist.name if point.dist is not None else "an unknown package"
        where = f"{group} entry point {point.name!r} of {package}"
        try:
            found.append(Plugin(point.load(), where))
        except Exception as error:  # whatever the other package raises when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"{where} cannot be loaded ({reason}); repair or uninstall {package}") from error
    return tuple(found)


def settings_files(group: str, builtin: Traversable) -> dict[str, Traversable]:
    """Returns the ``.toml`` files of edgeq's own folder and of all plug-ins of a group by name, without the ending.

    Args:
        group: :data:`RECIPES` or :data:`TARGETS`.
        builtin: edgeq's own folder.

    Raises:
        UsageError: If a plug-in is no package with files, or two files have one name.
    """
    found = {_stem(entry): entry for entry in builtin.iterdir() if entry.name.endswith(".toml")}
    for plugin in plugins(group):
        try:
            entries = [entry for entry in importlib.resources.files(plugin.value).iterdir() if entry.is_file()]
        except (TypeError, AttributeError, OSError) as error:
            raise UsageError(f"{plugin.where} should name a package that holds .toml files ({error})") from None
        for entry in (entry for entry in entries if entry.name.endswith(".toml")):
            if _stem(entry) in found:
                raise UsageError(f"{plugin.where} brings {entry.name}, and there is one of that name already")
            found[_stem(entry)] = entry
    return found


def _stem(entry: Traversable) -> str:
    return entry.name.removesuffix(".toml")
