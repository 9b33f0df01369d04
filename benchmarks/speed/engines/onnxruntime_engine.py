"""ONNX Runtime after its transformer optimizer: float32, dynamic int8, and block-quantized weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from turns import Call, ids, serve

_BLOCK = 128
"""Weights that share a scale: at 2 bits, blocks of 32 take twice the time."""
_INT8_ACCUMULATION = 4
"""``accuracy_level`` at which MatMulNBits multiplies int8 activations: its fastest."""


def load(request: dict[str, Any]) -> Call:
    """Returns the call of one variant."""
    file = Path(request["folder"]) / "peers" / f"onnxruntime-{request['variant']}.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given, tokens = ids(request), request["tokens"]
    if request["kind"] == "encode":
        feeds = {entry.name: np.ones_like(given) for entry in session.get_inputs()}
        feeds |= {"input_ids": given}
        if "token_type_ids" in feeds:
            feeds["token_type_ids"] = np.zeros_like(given)
        return lambda: session.run(["last_hidden_state"], feeds)[0]
    empty = {e.name: _no_past(e, given.shape[0]) for e in session.get_inputs() if e.name.startswith("past_key_values")}
    prompt = _decoder_inputs(session, given[:, :tokens], 0) | empty
    if request["kind"] == "prefill":
        return lambda: session.run(None, prompt)[0][:, -1]
    past = dict(zip((o.name for o in session.get_outputs()), session.run(None, prompt), strict=True))
    step = _decoder_inputs(session, given[:, tokens:], tokens)
    step |= {name: past[name.replace("past_key_values", "present")] for name in empty}
    return lambda: session.run(None, step)[0][:, -1]


def make(model: Path, variant: str) -> None:
    """Writes the file of one variant; the fused float file first, which the others start from."""
    folder = model / "peers"
    fused, file = folder / "onnxruntime-float32.onnx", folder / f"onnxruntime-{variant}.onnx"
    if not fused.is_file():
        _fuse(folder, fused)
    if file.is_file():
        return
    unfinished = file.with_suffix(".unfinished")
    if variant == "int8":
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(fused), str(unfinished), weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Attention"],
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip
    else:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            onnx.load(fused), bits=int(variant.removeprefix("nbits")), block_size=_BLOCK, is_symmetric=True,
            accuracy_level=_INT8_ACCUMULATION,
        )  # fmt: skip
        quantizer.process()
        quantizer.model.save_model_to_file(str(unfinished))
    unfinished.rename(file)


def _fuse(folder: Path, fused: Path) -> None:
    from onnxruntime.transformers import optimizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_attention_heads") or config["n_head"]
    width = config.get("hidden_size") or config["n_embd"]
    optimized = optimizer.optimize_model(
        str(folder / "model.onnx"), model_type=config["model_type"], num_heads=heads, hidden_size=width
    )
    unfinished = fused.with_suffix(".unfinished")
    optimized.save_model_to_file(str(unfinished))
    unfinished.rename(fused)


def _no_past(entry: Any, batch: int) -> np.ndarray:
    heads, size = entry.shape[1], entry.shape[3]
    return np.zeros((batch, heads, 0, size), np.float32)


def _decoder_inputs(session: Any, new: np.ndarray, past: int) -> dict[str, np.ndarray]:
    batch, tokens = new.shape
    positions = np.broadcast_to(np.arange(past, past + tokens), new.shape)
    possible = {
        "input_ids": new,
        "attention_mask": np.ones((batch, past + tokens), np.int64),
        "position_ids": np.ascontiguousarray(positions),
    }
    wanted = {entry.name for entry in session.get_inputs()}
    return {name: value for name, value in possible.items() if name in wanted}


if __name__ == "__main__":
    serve(load, make=make, packages=("onnxruntime",))
