"""What rounding keys and values costs a decoder: its loss on a text with each type of cache, in PyTorch.

    python -m benchmarks.cache.perplexity models/zoo/gpt2-wikitext2 test.txt --tokens 20000 --out perplexity.json

All types predict the same tokens; a difference is the mean over them, with its standard error. ``int8, queries too`` is
what a kernel of integer dot products would compute: it is no option, and says why.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.machine import facts
from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.errors import UnsupportedError
from edgeq.evaluate.data import TextFile, read_text_file
from edgeq.evaluate.perplexity import Perplexity, evaluate_perplexity
from edgeq.files import write_text
from edgeq.models import GenerativeAdapter, TorchDecoder
from edgeq.models.cache import CACHE_DTYPES, attend, read, store
from edgeq.recipes import apply_recipe, load_recipe

RECIPES = (None, "ptq-w8a8", "ptq-w4a8")


def main() -> int:
    """Measures, prints a line for each recipe and type, and writes the file."""
    options = _arguments()
    text = read_text_file(options.text)
    rows = [row for recipe in RECIPES for row in measure(options.model, text, recipe=recipe, tokens=options.tokens)]
    result = {"model": options.model.name, "text": options.text.name, "machine": facts(), "rows": rows}
    if options.out is not None:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def measure(model: Path, text: TextFile, *, recipe: str | None, tokens: int) -> list[dict[str, Any]]:
    """Measures one model with each type of cache.

    Args:
        model: A float checkpoint of a decoder.
        text: The text.
        recipe: Recipe that it is compressed with; None leaves it float.
        tokens: How many tokens are predicted.
    """
    checkpoint = load_checkpoint(model)
    if recipe is not None:
        apply_recipe(checkpoint.model, load_recipe(recipe), checkpoint.adapter)
    found = {name: _perplexity(checkpoint, dtype, text, tokens) for name, dtype in CACHE_DTYPES.items()}
    with mock.patch("edgeq.models.decoder.attend", _attend_with_rounded_queries):
        found["int8, queries too"] = _perplexity(checkpoint, torch.int8, text, tokens)
    base = found["float32"].log_probabilities.astype(np.float64)
    rows = []
    for name, result in found.items():
        lost = base - result.log_probabilities
        row = {
            "recipe": recipe or "float",
            "cache": name,
            "perplexity": result.value,
            "more loss a token": float(lost.mean()),
            "standard error": float(lost.std() / np.sqrt(len(lost))),
            "tokens": result.tokens,
        }
        rows.append(row)
        shown = (f"{value:.6f}" if isinstance(value, float) else str(value) for value in row.values())
        print(" | ".join(shown), flush=True)
    return rows


def _attend_with_rounded_queries(query: torch.Tensor, *memory: torch.Tensor, scale: float | None) -> torch.Tensor:
    return attend(read(store(query, torch.int8)), *memory, scale=scale)


def _perplexity(checkpoint: Checkpoint, dtype: torch.dtype, text: TextFile, tokens: int) -> Perplexity:
    if not isinstance(checkpoint.adapter, GenerativeAdapter):
        raise UnsupportedError(f"{checkpoint.adapter.architecture} does not generate text: it has no perplexity")
    decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=dtype)
    return evaluate_perplexity(
        TorchLogProbabilities(decoder.score),
        checkpoint.tokenizer,
        text,
        context=checkpoint.adapter.max_positions,
        max_tokens=tokens,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=20000)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
