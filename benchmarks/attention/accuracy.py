"""What ways to quantize attention lose, on a task and in the model's outputs.

    python -m benchmarks.attention.accuracy MODEL dev.tsv --recipe ptq-w8a8 --out accuracy.json

``moved`` is the root mean square of what a way changes in the outputs for the texts of the task, over that of the
outputs; ``moved at length`` is the same for blocks of as many tokens as the model takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attention.schemes import SCHEMES, attention_in
from benchmarks.machine import facts
from edgeq.arrays import Arrays
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import load_checkpoint
from edgeq.evaluate.kinds import read_evaluation_data
from edgeq.evaluate.tasks import evaluate
from edgeq.files import write_text
from edgeq.models import TorchEncoder
from edgeq.recipes import apply_recipe, load_recipe


def main() -> int:
    """Measures, prints a line for each way, and writes the file."""
    options = _arguments()
    chosen = [name for name in SCHEMES if not options.only or name in options.only]
    result = measure(
        options.model, options.data, recipe=options.recipe, text=options.text, limit=options.blocks, names=chosen
    )
    if options.out is not None:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def measure(
    model: Path, data: Path, *, recipe: str, text: Path, limit: int, names: Sequence[str] = tuple(SCHEMES)
) -> dict[str, Any]:
    """Measures float attention and ways to quantize it.

    Args:
        model: A float checkpoint of an encoder.
        data: Evaluation data of its task.
        recipe: Recipe that it is compressed with.
        text: A text whose blocks have the greatest length.
        limit: How many blocks.
        names: The ways that are asked for.
    """
    checkpoint = load_checkpoint(model)
    apply_recipe(checkpoint.model, load_recipe(recipe), checkpoint.adapter)
    encoder = TorchEncoder(checkpoint.model, checkpoint.adapter)
    backend = TorchBackend(encoder)
    blocks = _blocks(checkpoint, text, limit)
    examples = read_evaluation_data(data, checkpoint.adapter.task)
    rows: list[dict[str, Any]] = []
    base: tuple[list[np.ndarray], list[np.ndarray]] | None = None
    for name, scheme in {"float attention": None, **{name: SCHEMES[name] for name in names}}.items():
        seen: list[np.ndarray] = []

        def run(feed: Arrays, /, seen: list[np.ndarray] = seen) -> Arrays:
            outputs = backend(feed)
            seen.append(_kept(outputs, feed["attention_mask"]))
            return outputs

        with contextlib.nullcontext() if scheme is None else attention_in(scheme):
            found = evaluate(
                run, checkpoint.tokenizer, examples, sentence=checkpoint.sentence, labels=checkpoint.adapter.labels
            )
            long = [_kept(encoder(block, np.ones_like(block)), np.ones_like(block)) for block in blocks]
        if base is None:
            base = (list(seen), long)
        row = {"attention": name, found.metric: found.value}
        row |= {"moved": _moved(seen, base[0]), "moved at length": _moved(long, base[1])}
        rows.append(row)
        print(" | ".join(f"{value:.5f}" if isinstance(value, float) else value for value in row.values()), flush=True)
    about = {"model": model.name, "data": data.name, "recipe": recipe, "machine": facts()}
    return {**about, "block": int(blocks[0].shape[1]), "blocks": len(blocks), "rows": rows}


def _kept(outputs: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Outputs of real tokens, or of texts."""
    first = next(iter(outputs.values()))
    return first[mask == 1] if first.ndim == 3 else first


def _moved(found: list[np.ndarray], base: list[np.ndarray]) -> float:
    pairs = zip(found, base, strict=True)
    difference = sum(float(np.square(one - other, dtype=np.float64).sum()) for one, other in pairs)
    return float(np.sqrt(difference / sum(float(np.square(one, dtype=np.float64).sum()) for one in base)))


def _blocks(checkpoint: Any, text: Path, limit: int) -> list[np.ndarray]:
    length = min(512, checkpoint.adapter.max_positions)
    tokenizer = checkpoint.tokenizer
    ids = tokenizer(text.read_text(encoding="utf-8")[: 16 * length * limit], add_special_tokens=False)["input_ids"]
    own = length - tokenizer.num_special_tokens_to_add()
    rows = [tokenizer.build_inputs_with_special_tokens(ids[at * own : (at + 1) * own]) for at in range(limit)]
    return [np.array([row], np.int64) for row in rows if len(row) == length]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="a text file, for blocks of the greatest length")
    parser.add_argument("--recipe", default="ptq-w8a8")
    parser.add_argument("--blocks", type=int, default=16, help="how many blocks")
    parser.add_argument("--only", action="append", help="a way that is asked for; may be repeated")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
