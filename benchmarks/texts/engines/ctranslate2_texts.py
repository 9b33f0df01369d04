"""CTranslate2 with the files of ``benchmarks/speed``: int8, texts in order of length (it takes padding out itself)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2_engine import COMPUTE_TYPES, make
from text_turns import BUDGETS, Embed, grouped, serve
from tokenizers import Tokenizer


def load(request: dict[str, Any]) -> Mapping[str, Embed]:
    """Returns the model at several sizes of batches."""
    folder = Path(request["folder"])
    encoder = ctranslate2.Encoder(
        str(folder / "ctranslate2"), device="cpu", compute_type=COMPUTE_TYPES[request["variant"]], inter_threads=1,
        intra_threads=request["threads"],
    )  # fmt: skip

    def run(rows: list[list[int]]) -> np.ndarray:
        return np.asarray(encoder.forward_batch(rows).last_hidden_state)

    tokenizer = Tokenizer.from_file(str(folder / "float" / "tokenizer.json"))
    return {
        f"{budget} tokens a batch": grouped(tokenizer, run, longest=request["longest"], budget=budget)
        for budget in BUDGETS
    }


if __name__ == "__main__":
    serve(load, make=make, packages=("ctranslate2", "tokenizers"))
