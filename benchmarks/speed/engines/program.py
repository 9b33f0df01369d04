"""Runs one program and prints its seconds, peak memory and exit status: ``python program.py COMMAND...``.

A process of its own, because a program's peak as the kernel reports it is at least that of the process that started it,
and the benchmark itself is large.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Runs the command line's program to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps({"process_seconds": seconds, "peak_kib": usage.ru_maxrss, "status": process.returncode}))


if __name__ == "__main__":
    main()
