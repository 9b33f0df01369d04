"""ONNX Runtime after its transformer optimizer: float32, dynamic int8, and block-quantized weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from turns import Call, ids, serve

_BLOCK = 32
_INT8_ACCUMULATION = 4
"""``accuracy_level`` at which MatMulNBits multiplies int8 activations: its fastest."""


def load(request: dict[str, Any]) -> Call:
    """Returns the call of one variant; its file is made once."""
    folder = Path(request["folder"])
    file = folder / f"onnxruntime-{request['variant']}.onnx"
    if not file.is_file():
        _make(folder, file, request["variant"])
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


def _make(folder: Path, file: Path, variant: str) -> None:
    from onnxruntime.transformers import optimizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_attention_heads") or config["n_head"]
    width = config.get("hidden_size") or config["n_embd"]
    fused = folder / "onnxruntime-float32.onnx"
    if not fused.is_file():
        optimized = optimizer.optimize_model(
            str(folder / "model.onnx"), model_type=config["model_type"], num_heads=heads, hidden_size=width
        )
        optimized.save_model_to_file(str(fused))
    if variant == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(fused), str(file), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Attention"],
            extra_options={"DefaultTensorType": 1},
        )  # fmt: skip
    elif variant.startswith("nbits"):
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            onnx.load(fused), bits=int(variant.removeprefix("nbits")), block_size=_BLOCK, is_symmetric=True,
            accuracy_level=_INT8_ACCUMULATION,
        )  # fmt: skip
        quantizer.process()
        quantizer.model.save_model_to_file(str(file))


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
    serve(load)
