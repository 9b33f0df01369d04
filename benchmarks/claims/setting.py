"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

import edgeq
from edgeq.targets.runtime.machine import this_machine
from edgeq.training.bfloat16 import multiplies_bfloat16


def describe_setting() -> dict[str, Any]:
    """Returns processor or GPU, threads, whether trainings multiply bfloat16, versions, and the commit of the code."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": this_machine().model,
        "accelerator": accelerator,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": multiplies_bfloat16("cpu" if accelerator is None else "cuda"),
        "edgeq": edgeq.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Returns the commit, with a plus sign where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
