"""Turns a training run into a zoo folder: float16 weights, tokenizer, log, and a card with measured figures.

Run from the repository's root:

    python -m benchmarks.zoo.publish gpt2-wikitext2 --run RUN --data DATA --out models/zoo/gpt2-wikitext2
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import BartForConditionalGeneration, GPT2LMHeadModel, PreTrainedModel

from benchmarks.zoo.card import CARDS, write_card
from benchmarks.zoo.figures import measure_bart, measure_gpt2
from benchmarks.zoo.options import command_of
from edgeq.errors import UsageError
from edgeq.files import Output, new_folder

MOST_BYTES = 16_000_000
_MODELS = {
    "gpt2-wikitext2": GPT2LMHeadModel,
    "gpt2-wikitext2-plateau": GPT2LMHeadModel,
    "bart-infill-scitldr": BartForConditionalGeneration,
}
_MEASURES = {
    "gpt2-wikitext2": measure_gpt2,
    "gpt2-wikitext2-plateau": measure_gpt2,
    "bart-infill-scitldr": measure_bart,
}


def _save_half(name: str, best: Path, folder: Path) -> None:
    """Writes the best model's weights in float16; a tied matrix is stored once, as transformers does."""
    model = _MODELS[name].from_pretrained(best)
    if model.config.model_type == "gpt2":
        model.config.activation_function = "gelu_new"  # GPT-2's own name of the function it was trained with
    model.half().save_pretrained(folder)
    file = folder / "model.safetensors"
    if file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file.name} has {file.stat().st_size} bytes, more than a zoo model's {MOST_BYTES}")


def publish(name: str, *, run: Path, data: Path, out: Path, note: str = "") -> dict[str, Any]:
    """Writes the zoo folder ``out`` from the best model of a run.

    Args:
        name: The model's name in the zoo.
        run: The ``--out`` folder of its training script.
        data: Folder of the data sets.
        out: The folder to write; replaced if it exists.
        note: A sentence for the card's part on training.

    Returns:
        The card's record: steps, figures, command.

    Raises:
        UsageError: If the run has no best model yet, or its weights are too large.
    """
    best = run / "best"
    if not (best / "record.json").is_file():
        raise UsageError(f"{best} holds no model: --run must be the --out folder of a training that validated")
    trained = json.loads((best / "record.json").read_text(encoding="utf-8"))
    with new_folder(out, Output("zoo")) as folder:
        _save_half(name, best, folder)
        for file in (run / "tokenizer").iterdir():
            shutil.copy(file, folder / file.name)
        shutil.copy(run / "log.jsonl", folder / "training-log.jsonl")
        model: PreTrainedModel = _MODELS[name].from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        figures, samples = _MEASURES[name](model, tokenizer, data)
        record = {
            "name": name,
            "command": command_of(run),
            "parameters": model.num_parameters(),
            "steps": trained["step"],
            "minutes": round(trained["seconds"] / 60),
            "figures": [asdict(figure) for figure in figures],
        }
        (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_card(folder, name, record=record, samples=samples, note=note)
    return record


def main() -> None:
    """Publishes one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(CARDS), help="the model's name in the zoo")
    parser.add_argument("--run", type=Path, required=True, help="--out folder of the training")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets' folders")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--note", default="", help="a sentence for the card's part on training")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = publish(arguments.name, run=arguments.run, data=arguments.data, out=arguments.out, note=arguments.note)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
