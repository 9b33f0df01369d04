"""What a run folder says about itself: where its float model came from, and its bundles."""

from __future__ import annotations

from pathlib import Path

from edgeq.backends.bundles import BundleAccess
from edgeq.results import About, RunRecord


def bundles_of(folder: Path, access: BundleAccess) -> list[Path]:
    """Returns the bundles of a run; those that this machine runs come first."""
    found = [path.parent for path in (folder / "bundles").glob("*/manifest.json")]
    return sorted(found, key=lambda path: (not access.is_native(path), path.name))


def float_model_of(folder: Path) -> Path | None:
    """Returns the folder of the float model that ``deploy.json`` names, if it still exists.

    Raises:
        FormatError: If ``deploy.json`` is damaged.
    """
    about = _about(folder)
    return Path(about.source_folder) if about is not None and Path(about.source_folder).is_dir() else None


def task_of_source(folder: Path) -> str | None:
    """Returns what was made of the float model, if the run was told (``--task``).

    Raises:
        FormatError: If ``deploy.json`` is damaged.
    """
    about = _about(folder)
    return None if about is None else about.task


def _about(folder: Path) -> About | None:
    """What the run is of; None for a folder whose stages were run one by one."""
    path = folder / "deploy.json"
    return RunRecord.read(path).about if path.is_file() else None
