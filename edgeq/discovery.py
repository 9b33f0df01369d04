"""Registries that are what the files of a folder define: a new file is in them without being listed anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: str) -> list[ModuleType]:
    """Imports the modules that lie in a package, sorted by name; those of packages inside it are left out."""
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder) if not module.ispkg)
    return [importlib.import_module(f"{package}.{name}") for name in names]


def classes_of(package: str, base: type[T], *, having: str) -> dict[str, type[T]]:
    """Returns the classes that a package's modules define, by the name that each gives itself.

    Args:
        package: Name of the package, such as ``edgeq.quant.quantizers``.
        base: What they are subclasses of; a base class without a name is left out.
        having: The class attribute that holds the name. A class that only inherits it is left out.

    Raises:
        TypeError: If two classes have one name: the second would hide the first.
    """
    found: dict[str, type[T]] = {}
    for module in modules_of(package):
        for value in vars(module).values():
            is_own = isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
            if not is_own or having not in vars(value):
                continue
            name = vars(value)[having]
            if name in found:
                raise TypeError(f"{value.__module__}.{value.__name__} and {found[name].__name__} are both {name!r}")
            found[name] = value
    return found
