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
    path = folder / "deploy.json"
    if not path.is_file():
        return None
    try:
        source = Path(str(read_json_object(path)["about"]["source_folder"]))
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} is not as `edgeq deploy` writes it ({error!r}); deploy again") from error
    return source if source.is_dir() else None
