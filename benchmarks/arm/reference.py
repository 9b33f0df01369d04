"""What a call should give: PyTorch's float32 on this machine."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.arm.programs import Work
from benchmarks.speed.engines.turns import ids


@functools.cache
def reference_of(work: Work, *, models: Path) -> np.ndarray:
    """Returns an encoder's hidden states ``[1, tokens, width]``, or a decoder's last logits ``[1, vocabulary]``."""
    folder = models / work.model / "float"
    given = torch.from_numpy(ids(work.request(folder, "")))
    kind = transformers.AutoModel if work.kind == "encode" else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        found = model(input_ids=given)
    return (found.last_hidden_state if work.kind == "encode" else found.logits[:, -1]).numpy()


def cosine(output: np.ndarray, reference: np.ndarray) -> float:
    """Returns the cosine of two outputs; -1 where they differ in size."""
    a, b = output.ravel().astype(np.float64), reference.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if a.size == b.size else -1.0
