"""What a run folder says about itself: where its float model came from, and what can run its bundles."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest


def bundles_of(folder: Path) -> list[Path]:
    """Returns the bundles of a run; those that this machine runs come first."""
    found = [path.parent for path in (folder / "bundles").glob("*/manifest.json")]
    return sorted(found, key=lambda path: (not is_native(path), path.name))


def is_native(bundle: Path) -> bool:
    """Tells whether this machine's processor runs the bundle."""
    target, machine = read_manifest(bundle).target, this_machine()
    return machine.architecture == target.architecture and not machine.lacks(target.cpu_flags)


def target_of(bundle: Path) -> Target:
    """Returns this machine's target with the processor that the bundle was compiled for."""
    info = read_manifest(bundle).target
    same = {field: getattr(info, field) for field in ("triple", "cpu", "features", "isa", "cpu_flags")}
    return dataclasses.replace(load_target("host"), **same)


def source_of(folder: Path) -> Path | None:
    """Returns the folder of the float model that ``deploy.json`` names, if it still exists.

    Raises:
        FormatError: If ``deploy.json`` is damaged.
    """
    path = folder / "deploy.json"
    if not path.is_file():
        return None
    try:
        source = Path(str(json.loads(path.read_text(encoding="utf-8"))["about"]["source_folder"]))
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not as `edgeq deploy` writes it ({error!r}); deploy again") from error
    return source if source.is_dir() else None
