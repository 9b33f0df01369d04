"""What a run folder says about itself: where its float model came from, and its bundles."""

from __future__ import annotations

from pathlib import Path

from edgeq.backends.bundles import BundleAccess
from edgeq.errors import FormatError
from edgeq.formats.json_file import read_json_object


def bundles_of(folder: Path, access: BundleAccess) -> list[Path]:
    """Returns the bundles of a run; those that this machine runs come first."""
    found = [path.parent for path in (folder / "bundles").glob("*/manifest.json")]
    return sorted(found, key=lambda path: (not access.is_native(path), path.name))


def source_of(folder: Path) -> Path | None:
    """Returns the folder of the float model that ``deploy.json`` names, if it still exists.

    Raises:
        FormatError: If ``deploy.json`` is damaged.
    """
    source = _about(folder, "source_folder")
    if source is None and (folder / "deploy.json").is_file():
        raise FormatError(f"{folder / 'deploy.json'} does not name the source; deploy again")
    return Path(source) if source is not None and Path(source).is_dir() else None


def task_of_source(folder: Path) -> str | None:
    """Returns what was made of the float model, if the run was told (``--task``).

    Raises:
        FormatError: If ``deploy.json`` is damaged.
    """
    return _about(folder, "task")


def _about(folder: Path, key: str) -> str | None:
    path = folder / "deploy.json"
    if not path.is_file():
        return None
    about = read_json_object(path).get("about")
    value = about.get(key) if isinstance(about, dict) else 0
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{path} is not as `edgeq deploy` writes it (about.{key}); deploy again")
    return value
