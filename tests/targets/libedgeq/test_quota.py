"""Cores that control groups leave to a process, from files as the system has them."""

import os
import subprocess

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

PROGRAM = """
#include <limits.h>
#include <stdio.h>
#include "quota.h"
int main(int count, char **arguments) {
  int cores = count == 2 ? quota_cores(arguments[1]) : 0;
  return printf(cores == INT_MAX ? "none\\n" : "%d\\n", cores) < 0;
}
"""


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """Returns a function that says how many cores files leave to a process."""
    folder = tmp_path_factory.mktemp("quota")
    (folder / "main.c").write_text(PROGRAM)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", f"-I{LIBEDGEQ / 'library'}"]
    sources = [str(folder / "main.c"), str(LIBEDGEQ / "library" / "quota.c")]
    subprocess.run([os.environ.get("CC", "cc"), *flags, *sources, "-o", str(folder / "quota")], check=True)

    def run(root, files):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found = subprocess.run([str(folder / "quota"), str(root)], check=True, capture_output=True, text=True)
        return found.stdout.strip()

    return run


GROUP, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"
TWO, V1_LINE = {"proc/self/cgroup": "0::/a/b\n"}, {"proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/d/c1\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "none"),
        (TWO, "none"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "max 100000\n"}, "none"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "200000 100000\n"}, "2"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "190000 100000\n"}, "1"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "5000 100000\n"}, "1"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "max 100000\n", f"{GROUP}/a/cpu.max": "300000 100000\n"}, "3"),
        ({**TWO, f"{GROUP}/cpu.max": "400000 100000\n"}, "4"),  # a container, whose path is that of the world outside
        ({**TWO, f"{GROUP}/a/b/cpu.max": "nonsense\n"}, "none"),
        ({**TWO, f"{GROUP}/a/b/cpu.max": "-5 100000\n"}, "none"),
        ({**V1_LINE, f"{V1}/d/c1/cpu.cfs_quota_us": "-1\n", f"{V1}/d/c1/cpu.cfs_period_us": "100000\n"}, "none"),
        ({**V1_LINE, f"{V1}/d/c1/cpu.cfs_quota_us": "250000\n", f"{V1}/d/c1/cpu.cfs_period_us": "50000\n"}, "5"),
        ({**V1_LINE, f"{GROUP}/cpu/cpu.cfs_quota_us": "100000\n", f"{GROUP}/cpu/cpu.cfs_period_us": "50000\n"}, "2"),
        ({"proc/self/cgroup": "no colons\n::\n" + "0::/" + "x/" * 3000 + "\n"}, "none"),
    ],
)
def test_quotas_of_both_versions(cores, tmp_path, files, expected):
    assert cores(tmp_path, files) == expected
