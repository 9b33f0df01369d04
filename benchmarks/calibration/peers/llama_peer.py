"""llama.cpp: one format for all matrices, with an importance matrix and without; decoders only.

The importance matrix holds what ``llama-imatrix`` computes, the mean squares of what each matrix of a block reads. It
is taken from the float model in PyTorch: the tool reads texts through a tokenizer inside the file, which ours lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch
import transformers
from peer import Run, serve

from gguf_file import gpt2_names, write_gguf  # isort: skip - peer.py puts its folder on the path
from llama_engine import batch_of, check, check_blocks, context_of, quantize, sizes_of  # isort: skip


class Llama:
    """Variants are a format of llama.cpp, and the same with ``-imatrix``."""

    packages = ("llama-cpp-python",)

    def prepare(self, folder: Path, *, decoder: bool) -> None:
        """Writes the float file; see :class:`peer.Peer`."""
        if not decoder:
            raise ValueError("an importance matrix is made for decoders only")
        file = folder / "llama" / "F32.gguf"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            write_gguf(folder / "float", file.with_suffix(".unfinished"))
            file.with_suffix(".unfinished").rename(file)

    def quantize(self, folder: Path, variant: str, *, texts: list[np.ndarray]) -> int:
        """Makes a variant; see :class:`peer.Peer`."""
        form, file = variant.removesuffix("-imatrix"), folder / "llama" / f"{variant}.gguf"
        check_blocks(folder, form)
        importance = _mean_squares(folder / "float", texts) if variant.endswith("-imatrix") else None
        quantize(folder / "llama" / "F32.gguf", file, form, importance=importance)
        return file.stat().st_size

    def load(self, folder: Path, variant: str, *, threads: int) -> Run:
        """Returns what runs a variant; see :class:`peer.Peer`."""
        file, vocabulary = folder / "llama" / f"{variant}.gguf", sizes_of(folder)["vocabulary"]
        contexts: list[Any] = []

        def run(ids: np.ndarray, _mask: np.ndarray) -> np.ndarray:
            # The first texts are the longest and the most.
            context = contexts[0] if contexts else context_of(file, ids, threads, False)
            contexts[:] = [context]
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            check(llama_cpp.llama_decode(context, batch_of(ids, 0, all_outputs=True)))
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (ids.size, vocabulary))
            return logits.reshape(*ids.shape, vocabulary).copy()

        return run


@torch.no_grad()
def _mean_squares(checkpoint: Path, texts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the mean squares of the inputs of each matrix by its name in the file."""
    model = transformers.GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    sums: dict[str, torch.Tensor] = {}

    def seen(name: str, x: torch.Tensor) -> None:
        square = x.flatten(0, -2).double().square().sum(dim=0)
        sums[name] = sums[name] + square if name in sums else square

    for source, name in gpt2_names(model.config.n_layer).items():
        layer, _, part = source.rpartition(".")
        if part == "weight" and name.startswith("blk.") and "norm" not in name:
            module = model.transformer.get_submodule(layer)
            module.register_forward_pre_hook(lambda _module, inputs, name=name: seen(name, inputs[0]))
    for text in texts:
        model(torch.from_numpy(text))
    tokens = sum(text.size for text in texts)
    return {name: (total / tokens).float().numpy() for name, total in sums.items()}


if __name__ == "__main__":
    serve(Llama())
