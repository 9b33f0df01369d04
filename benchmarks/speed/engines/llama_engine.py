"""llama.cpp, built for this machine, through the C interface of llama-cpp-python.

Its quantizations are told to use one format for all matrices (``pure``), which is their fastest: by default the
embedding and some layers get more bits.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from turns import Call, Restore, ids, nothing, serve

_FLOAT = "F32"
_WIDE_BLOCKS = ("Q4_K_S", "Q2_K", "TQ2_0")
_WIDE_BLOCK = 256
"""Where rows are no multiple of it, llama.cpp takes another format without a word."""


@llama_cpp.llama_log_callback
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Takes llama.cpp's log, which is long."""


def make(model: Path, variant: str) -> None:
    """Writes the file of one variant; the float file first, which the others start from."""
    check_blocks(model, variant)
    folder = model / "llama"
    folder.mkdir(exist_ok=True)
    file, start = folder / f"{variant}.gguf", folder / f"{_FLOAT}.gguf"
    for target in (start, file):
        if target.is_file():
            continue
        unfinished = target.with_suffix(".unfinished")
        if target == start:
            from gguf_file import write_gguf  # not above: memory and start of this program are measured too

            write_gguf(model / "float", unfinished)
        else:
            quantize(start, unfinished, variant)
        unfinished.rename(target)


def quantize(start: Path, file: Path, variant: str, *, importance: dict[str, np.ndarray] | None = None) -> None:
    """Writes a float file in one format for all matrices.

    Args:
        start: The float file.
        file: The file to write.
        variant: Name of the format.
        importance: Mean squares of the inputs of matrices by the name of the matrix: float32, ``[K]``.
    """
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{variant}")
    settings.pure = True
    entry = llama_cpp.llama_model_imatrix_data
    kept = {name.encode(): np.ascontiguousarray(values, np.float32) for name, values in (importance or {}).items()}
    pointers = [(name, values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))) for name, values in kept.items()]
    sizes = [values.size for values in kept.values()]
    entries = (entry * (len(kept) + 1))(
        *(entry(name, pointer, size) for (name, pointer), size in zip(pointers, sizes, strict=True)), entry()
    )
    if kept:
        settings.imatrix = entries
    status = llama_cpp.llama_model_quantize(str(start).encode(), str(file).encode(), settings)
    if status:
        raise RuntimeError(f"llama.cpp does not quantize this model to {variant}, status {status}")


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    folder, given, tokens = Path(request["folder"]), ids(request), request["tokens"]
    check_blocks(folder, request["variant"])
    sizes = sizes_of(folder)
    encode = request["kind"] == "encode"
    context = context_of(folder / "llama" / f"{request['variant']}.gguf", given, request["threads"], encode)
    memory = llama_cpp.llama_get_memory(context)
    if encode:
        # Text by text: in one call, llama.cpp would compute the attention of every text to all others.
        texts = [batch_of(text[None], 0, all_outputs=True) for text in given]
        return lambda: np.stack([_encoded(context, text, sizes["width"]) for text in texts]), nothing
    whole = batch_of(given[:, :tokens], 0)

    def logits(batch: llama_cpp.llama_batch, outputs: Iterable[int]) -> np.ndarray:
        check(llama_cpp.llama_decode(context, batch))
        rows = [llama_cpp.llama_get_logits_ith(context, output) for output in outputs]
        return np.stack([np.ctypeslib.as_array(row, (sizes["vocabulary"],)).copy() for row in rows])

    lasts = [tokens - 1 + text * tokens for text in range(len(given))]
    if request["kind"] == "prefill":
        return lambda: logits(whole, lasts), lambda: llama_cpp.llama_memory_clear(memory, False)
    logits(whole, lasts)
    one = batch_of(given[:, tokens:], tokens)
    return lambda: logits(one, range(len(given))), lambda: llama_cpp.llama_memory_seq_rm(memory, -1, tokens, -1)


def check_blocks(model: Path, variant: str) -> None:
    """Raises an error for a format whose blocks a model's rows do not fill."""
    width = sizes_of(model)["width"]
    if variant in _WIDE_BLOCKS and width % _WIDE_BLOCK:
        raise ValueError(f"{variant} has blocks of {_WIDE_BLOCK}, which rows of {width} do not fill")


def sizes_of(model: Path) -> dict[str, int]:
    """Returns the width and the size of the vocabulary of the checkpoint in ``float`` of a model's folder."""
    config = json.loads((model / "float" / "config.json").read_text(encoding="utf-8"))
    return {"width": config.get("hidden_size") or config["n_embd"], "vocabulary": config["vocab_size"]}


def context_of(file: Path, given: np.ndarray, threads: int, encode: bool) -> Any:
    """Loads a file and returns a context for texts like those that are given: int, ``[texts, length]``."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp does not load {file.name}")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = given.size + 64 * len(given)
    settings.n_batch = settings.n_ubatch = given.size
    settings.n_seq_max = len(given)
    settings.n_threads = settings.n_threads_batch = threads
    settings.embeddings = encode
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError(f"llama.cpp makes no context for {file.name}")
    return context


def batch_of(new: np.ndarray, past: int, *, all_outputs: bool = False) -> llama_cpp.llama_batch:
    """Returns every text as a sequence of its own; the last token of each gives an output."""
    batch = llama_cpp.llama_batch_init(new.size, 0, 1)
    batch.n_tokens = new.size
    for index, token in enumerate(new.ravel()):
        text, position = divmod(index, new.shape[1])
        batch.token[index] = int(token)
        batch.pos[index] = past + position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = text
        batch.logits[index] = all_outputs or position == new.shape[1] - 1
    return batch


def _encoded(context: Any, text: llama_cpp.llama_batch, width: int) -> np.ndarray:
    check(llama_cpp.llama_encode(context, text))
    return np.ctypeslib.as_array(llama_cpp.llama_get_embeddings(context), (text.n_tokens, width)).copy()


def check(status: int) -> None:
    """Raises an error for a call that llama.cpp did not make."""
    if status:
        raise RuntimeError(f"llama.cpp ended a call with status {status}")


if __name__ == "__main__":
    serve(load, make=make, packages=("llama-cpp-python",))
