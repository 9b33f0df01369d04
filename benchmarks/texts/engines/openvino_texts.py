"""OpenVINO with the files of ``benchmarks/speed``: int8 after post-training quantization, texts in order of length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from openvino_engine import compiled_model, make
from text_turns import BUDGETS, Embed, grouped, padded, serve
from tokenizers import Tokenizer


def load(request: dict[str, Any]) -> Mapping[str, Embed]:
    """Returns the model at several sizes of batches."""
    compiled = compiled_model(request)
    asked = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.inputs]

    def run(rows: list[list[int]]) -> np.ndarray:
        ids, mask = padded(rows)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return asked.infer({name: feeds[name] for name in names}, share_inputs=True, share_outputs=True)[0]

    tokenizer = Tokenizer.from_file(str(Path(request["folder"]) / "float" / "tokenizer.json"))
    return {
        f"{budget} tokens a batch": grouped(tokenizer, run, longest=request["longest"], budget=budget)
        for budget in BUDGETS
    }


if __name__ == "__main__":
    serve(load, make=make, packages=("openvino", "tokenizers"))
