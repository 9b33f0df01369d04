"""The programs of LLVM that an estimate needs: the newest that are installed, both of one version."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

from edgeq.errors import EdgeqError

INSTALL = "apt-get install llvm"
_MCA = re.compile(r"llvm-mca-(\d+)")


@dataclasses.dataclass(frozen=True)
class LlvmTools:
    """Where they are.

    Attributes:
        mca: ``llvm-mca``: models a processor's pipeline.
        objdump: ``llvm-objdump``: the disassembler.
        version: What ``llvm-mca`` says of its version.
    """

    mca: str
    objdump: str
    version: str


def find_llvm() -> LlvmTools:
    """Looks for the programs on ``PATH``, also under the names with a version that Debian gives them.

    Raises:
        EdgeqError: If there are none; the message says what to install.
    """
    versions = {int(found[1]) for name in _programs() if (found := _MCA.fullmatch(name))}
    for suffix in (*(f"-{version}" for version in sorted(versions, reverse=True)), ""):
        mca, objdump = shutil.which(f"llvm-mca{suffix}"), shutil.which(f"llvm-objdump{suffix}")
        if mca and objdump:
            return LlvmTools(mca, objdump, _version(mca))
    raise EdgeqError(f"estimates need llvm-mca and llvm-objdump, which are not here; install them with `{INSTALL}`")


def _programs() -> set[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    return {path.name for folder in folders if folder.is_dir() for path in folder.glob("llvm-mca*")}


def _version(program: str) -> str:
    result = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"LLVM version (\S+)", result.stdout)
    return f"LLVM {found[1]}" if found else "LLVM of unknown version"
