"""ONNX Runtime with the files of ``benchmarks/speed``: float32 and dynamic int8, texts in order of length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime_engine import make
from text_turns import BUDGETS, Embed, grouped, padded, serve
from tokenizers import Tokenizer


def load(request: dict[str, Any]) -> Mapping[str, Embed]:
    """Returns the model at several sizes of batches."""
    folder = Path(request["folder"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = request["threads"], 1, 3
    file = folder / "peers" / f"onnxruntime-{request['variant']}.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}

    def run(rows: list[list[int]]) -> np.ndarray:
        ids, mask = padded(rows)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(["last_hidden_state"], {name: feeds[name] for name in names})[0]

    tokenizer = Tokenizer.from_file(str(folder / "float" / "tokenizer.json"))
    return {
        f"{budget} tokens a batch": grouped(tokenizer, run, longest=request["longest"], budget=budget)
        for budget in BUDGETS
    }


if __name__ == "__main__":
    serve(load, make=make, packages=("onnxruntime", "tokenizers"))
