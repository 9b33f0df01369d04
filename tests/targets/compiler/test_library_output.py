"""What libraries print below Python does not reach the terminal; everything else does."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging, os, sys, threading
handler = logging.StreamHandler()  # holds the stream of old
handler.setFormatter(logging.Formatter("log: %(message)s"))
logging.getLogger().addHandler(handler)
from edgeq.targets.compiler.library_output import without_library_output
SAID = b"[08:23:35] /project/include/tvm/topi/transform.h:1261: Warning: Fast mode segfaults\\n"
LLVM = b"'+strange' is not a recognized feature for this target (ignoring feature)\\n"

def inside(inner):
    with without_library_output():
        os.write(2, SAID + LLVM)
        print("from Python", file=sys.stderr)
        logging.error("from a handler")
        inner()

thread = threading.Thread(target=inside, args=(lambda: None,))
inside(lambda: (thread.start(), thread.join()))
os.write(2, b"[08:23:35] /x/y.cc:3: afterwards\\n")
print("afterwards", file=sys.stderr)
try:
    with without_library_output():
        os.write(2, SAID)
        raise ValueError
except ValueError:
    print("and after an error", file=sys.stderr)
"""


def test_only_libraries_are_dropped():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stderr.splitlines()) == sorted(
        ["from Python"] * 2
        + ["log: from a handler"] * 2
        + ["[08:23:35] /x/y.cc:3: afterwards", "afterwards", "and after an error"]
    )


@pytest.mark.parametrize("closed", ["2>&-", ""])
def test_without_standard_error_nothing_is_printed(closed):
    program = "from edgeq.targets.compiler.library_output import without_library_output as w\nwith w(): print('done')"
    command = f'"{sys.executable}" -c "{program}" {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)  # noqa: S602
    assert (done.stdout, done.stderr) == ("done\n", "")
