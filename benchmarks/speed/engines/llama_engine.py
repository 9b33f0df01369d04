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
    _check_blocks(model, variant)
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
            settings = llama_cpp.llama_model_quantize_default_params()
            settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{variant}")
            settings.pure = True
            status = llama_cpp.llama_model_quantize(str(start).encode(), str(unfinished).encode(), settings)
            if status:
                raise RuntimeError(f"llama.cpp does not quantize this model to {variant}, status {status}")
        unfinished.rename(target)


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    folder, given, tokens = Path(request["folder"]), ids(request), request["tokens"]
    _check_blocks(folder, request["variant"])
    sizes = _sizes(folder)
    encode = request["kind"] == "encode"
    context = _context(folder / "llama" / f"{request['variant']}.gguf", given, request["threads"], encode)
    memory = llama_cpp.llama_get_memory(context)
    if encode:
        # Text by text: in one call, llama.cpp would compute the attention of every text to all others.
        texts = [_batch(text[None], 0, all_outputs=True) for text in given]
        return lambda: np.stack([_encoded(context, text, sizes["width"]) for text in texts]), nothing
    whole = _batch(given[:, :tokens], 0)

    def logits(batch: llama_cpp.llama_batch, outputs: Iterable[int]) -> np.ndarray:
        _check(llama_cpp.llama_decode(context, batch))
        rows = [llama_cpp.llama_get_logits_ith(context, output) for output in outputs]
        return np.stack([np.ctypeslib.as_array(row, (sizes["vocabulary"],)).copy() for row in rows])

    lasts = [tokens - 1 + text * tokens for text in range(len(given))]
    if request["kind"] == "prefill":
        return lambda: logits(whole, lasts), lambda: llama_cpp.llama_memory_clear(memory, False)
    logits(whole, lasts)
    one = _batch(given[:, tokens:], tokens)
    return lambda: logits(one, range(len(given))), lambda: llama_cpp.llama_memory_seq_rm(memory, -1, tokens, -1)


def _check_blocks(model: Path, variant: str) -> None:
    width = _sizes(model)["width"]
    if variant in _WIDE_BLOCKS and width % _WIDE_BLOCK:
        raise ValueError(f"{variant} has blocks of {_WIDE_BLOCK}, which rows of {width} do not fill")


def _sizes(model: Path) -> dict[str, int]:
    config = json.loads((model / "float" / "config.json").read_text(encoding="utf-8"))
    return {"width": config.get("hidden_size") or config["n_embd"], "vocabulary": config["vocab_size"]}


def _context(file: Path, given: np.ndarray, threads: int, encode: bool) -> Any:
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


def _batch(new: np.ndarray, past: int, *, all_outputs: bool = False) -> llama_cpp.llama_batch:
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
    _check(llama_cpp.llama_encode(context, text))
    return np.ctypeslib.as_array(llama_cpp.llama_get_embeddings(context), (text.n_tokens, width)).copy()


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"llama.cpp ended a call with status {status}")


if __name__ == "__main__":
    serve(load, make=make, packages=("llama-cpp-python",))
