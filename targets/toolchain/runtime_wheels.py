"""The TVM runtime libraries of a target: from this environment, from wheels on a package index, or built here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.files import made_of, new_folder
from edgeq.formats.json_file import read_json_object
from edgeq.reading import sha256
from edgeq.targets.builtin.target import FROM_SOURCE, Target
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.runtime_build import build_key, build_runtime

# Library name -> the package it comes in and its place in the wheel. libtvm_runtime needs libtvm_ffi.
_LIBRARIES = {
    "libtvm_ffi.so": ("apache-tvm-ffi", "tvm_ffi/lib/libtvm_ffi.so"),
    "libtvm_runtime.so": ("apache-tvm", "tvm/lib/libtvm_runtime.so"),
}
_DIGESTS = "sha256.json"
_TIMEOUT_S = 900


def package_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that a bundle's runtime comes from.

    Raises:
        EdgeqError: If one of them is not installed.
    """
    try:
        return {package: importlib.metadata.version(package) for package, _ in _LIBRARIES.values()}
    except importlib.metadata.PackageNotFoundError as error:
        raise EdgeqError(f"{error.name} is not installed; run: pip install 'edgeq[compile]'") from error


def cache_folder() -> Path:
    """Returns the user's cache folder of edgeq (``EDGEQ_CACHE``, or ``edgeq`` under ``XDG_CACHE_HOME``)."""
    if os.environ.get("EDGEQ_CACHE"):
        return Path(os.environ["EDGEQ_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq"


def runtime_libraries(target: Target) -> dict[str, Path]:
    """Returns the TVM runtime libraries for ``target``, by file name.

    For this machine's architecture they are the installed ones; for another they are downloaded or built once, in
    the installed versions, and kept in the user's cache with their SHA-256.

    Raises:
        EdgeqError: If they are neither installed nor cached, and cannot be downloaded or built.
    """
    if target.architecture == this_machine().architecture:
        return _installed()
    folder = _cached_folder(target)
    if not _is_intact(folder):
        with new_folder(folder, made_of("compile", *_LIBRARIES, _DIGESTS)) as out:
            (build_runtime if target.runtime_platform == FROM_SOURCE else _download)(target, out)
            digests = {name: sha256(out / name) for name in _LIBRARIES}
            (out / _DIGESTS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    return {name: folder / name for name in _LIBRARIES}


def is_available(target: Target) -> bool:
    """Tells whether :func:`runtime_libraries` needs neither a download nor a compiler.

    Raises:
        EdgeqError: If apache-tvm, whose version decides which libraries are meant, is not installed.
    """
    return target.architecture == this_machine().architecture or _is_intact(_cached_folder(target))


def _cached_folder(target: Target) -> Path:
    name = "-".join(f"{package}-{version}" for package, version in sorted(package_versions().items()))
    platform = target.runtime_platform
    if platform == FROM_SOURCE:
        platform = f"{target.architecture}-{build_key()}"
    return cache_folder() / "runtime" / platform / name


def _installed() -> dict[str, Path]:
    found = {}
    for name, (package, member) in _LIBRARIES.items():
        path = Path(str(importlib.metadata.distribution(package).locate_file(member)))
        if not path.is_file():
            raise EdgeqError(f"{path} is missing from the installed {package}; reinstall {package}")
        found[name] = path
    return found


def _is_intact(folder: Path) -> bool:
    try:
        digests = read_json_object(folder / _DIGESTS)
        return all(digests[name] == sha256(folder / name) for name in _LIBRARIES)
    except (EdgeqError, KeyError):
        return False


def _download(target: Target, out: Path) -> None:
    versions = package_versions()
    with tempfile.TemporaryDirectory() as temporary:
        for name, (package, member) in _LIBRARIES.items():
            wheel = _download_wheel(
                package, versions[package], target=target, folder=Path(temporary) / package
            )
            try:
                with zipfile.ZipFile(wheel) as archive:
                    (out / name).write_bytes(archive.read(member))
            except (zipfile.BadZipFile, KeyError) as error:
                raise EdgeqError(
                    f"{wheel.name} does not hold {member} ({error}); clear pip's cache"
                ) from error


def _download_wheel(package: str, version: str, *, target: Target, folder: Path) -> Path:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--python-version", python, "--platform", target.runtime_platform),
        *("--dest", str(folder), f"{package}=={version}"),
    ]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        result, reason = None, str(error)
    wheels = sorted(folder.glob("*.whl"))
    if result is None or result.returncode != 0 or not wheels:
        raise EdgeqError(
            f"cannot download {package} {version} for {target.runtime_platform}, whose library a bundle for "
            f"{target.name} needs: {reason}; give pip access to a package index and try again"
        )
    return wheels[0]
