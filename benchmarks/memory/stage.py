"""One stage of ``deploy`` in a process of its own; prints how much its resident set grew, as JSON.

Started as ``python -m benchmarks.memory.stage create NAME FOLDER``, or with ``STAGE FOLDER SMALL``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.memory import give_back

RECIPE = "ptq-w8a8"
_EVALUATION = Path(__file__).parents[1] / "data" / "demo_sts.tsv"
_SIZES = {"num_hidden_layers": 12, "max_position_embeddings": 512}
MODELS: dict[str, dict[str, int]] = {
    "bert-base": {
        **_SIZES, "vocab_size": 30522, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
    },
    "multilingual-e5-small": {
        **_SIZES, "vocab_size": 250037, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536,
    },
    "small": {
        "num_hidden_layers": 2, "max_position_embeddings": 512, "vocab_size": 400, "hidden_size": 48,
        "num_attention_heads": 2, "intermediate_size": 96,
    },
}  # fmt: skip
"""Shapes of encoders, by name; their weights are random."""


def create(name: str, folder: Path) -> None:
    """Writes a model with random weights, and a tokenizer of single characters."""
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**MODELS[name])).save_pretrained(folder / "float")
    letters = [chr(code) for code in range(0x20, 0x7F)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "float" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "float" / "vocab.txt")).save_pretrained(folder / "float")


def _compress(folder: Path) -> None:
    from edgeq.compress import compress_model

    compress_model(folder / "float", folder / "checkpoint", recipe=RECIPE)


def _export(folder: Path) -> None:
    from edgeq.export.exporter import export_onnx

    export_onnx(folder / "checkpoint", folder / "onnx", force=True)


def _export_float(folder: Path) -> None:
    from edgeq.export.exporter import export_onnx

    export_onnx(folder / "float", folder / "float-onnx", force=True)


def _compile(folder: Path) -> None:
    from edgeq.targets.bundle.writer import compile_bundle

    compile_bundle(folder / "onnx", folder / "bundles" / "host", target="host")


def _accuracy(folder: Path) -> None:
    from edgeq.deploy.accuracy import measure_accuracy
    from edgeq.evaluate.data import read_evaluation_set
    from edgeq.progress import silent

    data = read_evaluation_set(_EVALUATION, limit=16)
    measure_accuracy(
        folder / "float", folder / "checkpoint", {"host": folder / "bundles" / "host"}, data=data, progress=silent
    )


def _parity(folder: Path) -> None:
    from edgeq.parity.run import run_parity
    from edgeq.results import About, RecipeOfRun, RunRecord

    source = str(folder / "float")
    RunRecord(About("model", source, source, RecipeOfRun(RECIPE, "", ""), {}, ()), {}).write(folder / "deploy.json")
    run_parity(folder)


def _profile(folder: Path) -> None:
    from edgeq.targets.devices.profiler import profile_bundle

    profile_bundle(folder / "bundles" / "host", float_onnx=folder / "float-onnx", rounds=6)


STAGES: dict[str, Callable[[Path], None]] = {
    "compress": _compress,
    "export": _export,
    "export float": _export_float,
    "compile": _compile,
    "accuracy": _accuracy,
    "parity": _parity,
    "profile": _profile,
}
"""In the order in which they run; each reads what those before it wrote."""


def growth(work: Callable[[], None]) -> dict[str, int]:
    """Returns the bytes by which the resident set of this process grew at most while something ran."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the largest resident set so far is forgotten
    before = _status("VmRSS")
    work()
    return {"bytes": _status("VmHWM") - before, "baseline_bytes": before}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs what is asked for."""
    if arguments[0] == "create":
        shutil.rmtree(arguments[2], ignore_errors=True)
        create(arguments[1], Path(arguments[2]))
        return {}
    stage, folder, small = STAGES[arguments[0]], Path(arguments[1]), Path(arguments[2])
    stage(small)
    return growth(lambda: stage(folder))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
