"""Compares ``shim/ort_abi.h`` with a header of ONNX Runtime: ``python -m edgeq.export.ort.check_abi HEADER``.

The library is built without ONNX Runtime's headers, which no Python package brings. Debian's ``libonnxruntime-dev``
has them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from edgeq.errors import EdgeqError, UsageError
from edgeq.export.ort.library import SHIM

_SLOT = re.compile(r"^ORT_SLOT\((\w+), (\d+)\);", re.MULTILINE)
_MEMBER = re.compile(r"\(\*(\w+)\)")


def declared_slots() -> dict[str, int]:
    """Returns the places in ``OrtApi`` that the library relies on, by name."""
    text = (SHIM / "ort_abi.h").read_text(encoding="utf-8")
    return {name: int(slot) for name, slot in _SLOT.findall(text)}


def declared_members() -> list[str]:
    """Returns the members of ``OrtCustomOp`` after ``version``, in order."""
    text = (SHIM / "ort_abi.h").read_text(encoding="utf-8")
    return _MEMBER.findall(text[text.index("struct OrtCustomOp {") :])


def check(header: Path) -> int:
    """Compiles assertions about ``header``; returns how many hold.

    Raises:
        UsageError: If there is no such file.
        EdgeqError: If a place differs; the compiler's first complaint is in the message.
    """
    if not header.is_file():
        raise UsageError(f"{header} does not exist; apt-get install libonnxruntime-dev brings onnxruntime_c_api.h")
    pointer = "sizeof(void *)"
    claims = [f"offsetof(OrtApi, {name}) == {slot} * {pointer}" for name, slot in declared_slots().items()]
    members = enumerate(declared_members(), start=1)
    claims += [f"offsetof(OrtCustomOp, {name}) == {place} * {pointer}" for place, name in members]
    lines = ["#include <stddef.h>", f'#include "{header.resolve()}"']
    lines += [f'_Static_assert({claim}, "{claim}");' for claim in claims]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "check.c"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = ["cc", "-std=c11", "-fsyntax-only", str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip())
        raise EdgeqError(f"{header} and export/ort/shim/ort_abi.h disagree: {reason}")
    return len(claims)


def main() -> None:
    """Checks the header named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("header", type=Path, help="onnxruntime_c_api.h")
    header = parser.parse_args().header
    try:
        count = check(header)
    except EdgeqError as error:
        raise SystemExit(f"edgeq: {error}") from None
    print(f"{header}: all {count} places agree")  # noqa: T201


if __name__ == "__main__":
    main()
