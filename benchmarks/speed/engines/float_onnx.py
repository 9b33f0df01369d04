"""Writes the float ONNX file that several peers start from: ``float_onnx.py MODEL``, in the peers' environment.

MODEL is the folder of a model, with its checkpoint in ``float``; the file comes into ``peers``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from optimum.exporters.onnx import main_export

_TASKS = {
    "bert": "feature-extraction",
    "gpt2": "text-generation-with-past",
    "bart": "text2text-generation-with-past",
}


def main() -> None:
    """Writes the file under another name first: a folder that is there is whole."""
    folder = Path(sys.argv[1])
    family = json.loads((folder / "float" / "config.json").read_text(encoding="utf-8"))["model_type"]
    made = folder / "peers-unfinished"
    shutil.rmtree(made, ignore_errors=True)
    main_export(str(folder / "float"), output=made, task=_TASKS[family], do_validation=False, no_post_process=True)
    if family == "gpt2":
        _last_logits_only(made / "model.onnx")
    made.rename(folder / "peers")


def _last_logits_only(file: Path) -> None:
    """Lets the output head read the last token: what a generator computes."""
    model = onnx.load(file)
    head = next(node for node in model.graph.node if "logits" in node.output)
    for name, value in (("last_start", [-1]), ("last_end", [2**31 - 1]), ("last_axis", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    cut = helper.make_node("Slice", [head.input[0], "last_start", "last_end", "last_axis"], ["last_state"], name="last")
    model.graph.node.insert(list(model.graph.node).index(head), cut)
    head.input[0] = "last_state"
    del model.graph.value_info[:]
    onnx.save(model, file)


if __name__ == "__main__":
    main()
