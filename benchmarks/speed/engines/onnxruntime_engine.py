"""ONNX Runtime after its transformer optimizer: float32, dynamic int8, and block-quantized weights.

What only makes files is imported where it is used: memory and start of this program are measured too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from turns import Call, Restore, ids, nothing, serve

_BLOCK = 128
"""Weights that share a scale: at 2 bits, blocks of 32 take twice the time."""
_REWRITING = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
_INT8_ACCUMULATION = 4
"""``accuracy_level`` at which MatMulNBits multiplies int8 activations: its fastest."""


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if request["kind"] == "rewrite":
        return _rewriting(_rewriting_folder(Path(request["folder"]), request["variant"]), options, request), nothing
    file = Path(request["folder"]) / "peers" / f"onnxruntime-{request['variant']}.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given, tokens = ids(request), request["tokens"]
    if request["kind"] == "encode":
        feeds = {entry.name: np.ones_like(given) for entry in session.get_inputs()}
        feeds |= {"input_ids": given}
        if "token_type_ids" in feeds:
            feeds["token_type_ids"] = np.zeros_like(given)
        return lambda: session.run(["last_hidden_state"], feeds)[0], nothing
    empty = {e.name: _no_past(e, given.shape[0]) for e in session.get_inputs() if e.name.startswith("past_key_values")}
    prompt = _decoder_inputs(session, given[:, :tokens], 0) | empty
    if request["kind"] == "prefill":
        return lambda: session.run(None, prompt)[0][:, -1], nothing
    past = dict(zip((o.name for o in session.get_outputs()), session.run(None, prompt), strict=True))
    step = _decoder_inputs(session, given[:, tokens:], tokens)
    step |= {name: past[name.replace("past_key_values", "present")] for name in empty}
    return lambda: session.run(None, step)[0][:, -1], nothing


def make(model: Path, variant: str) -> None:
    """Writes the file of one variant; the fused float file first, which the others start from."""
    folder = model / "peers"
    if (folder / _REWRITING[0]).is_file():
        _quantize_rewriting(model, variant)
        return
    _made(folder / f"onnxruntime-{variant}.onnx", partial(_convert, folder, variant))


def _rewriting(folder: Path, options: Any, request: dict[str, Any]) -> Call:
    """Encoder-decoders run through optimum's class, as their users have them."""
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from rewriting import rewriting

    model = ORTModelForSeq2SeqLM.from_pretrained(
        folder, session_options=options, provider="CPUExecutionProvider", use_cache=True, use_merged=False
    )
    return rewriting(model, request)


def _rewriting_folder(model: Path, variant: str) -> Path:
    return model / ("peers" if variant == "float32" else f"peers-{variant}")


def _quantize_rewriting(model: Path, variant: str) -> None:
    """Writes the three graphs of an encoder-decoder with dynamic int8, unless they are there or shall stay float."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = _rewriting_folder(model, variant)
    if folder.is_dir():
        return
    made = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(model / "peers", made, ignore=shutil.ignore_patterns("*.onnx*"))
    for name in _REWRITING:
        quantize_dynamic(str(model / "peers" / name), str(made / name), weight_type=QuantType.QInt8)
    made.rename(folder)


def _made(file: Path, write: Callable[[Path], object]) -> Path:
    """Returns ``file``, which ``write`` makes under another name if it is not there."""
    if not file.is_file():
        unfinished = file.with_suffix(".unfinished")
        write(unfinished)
        unfinished.rename(file)
    return file


def _convert(folder: Path, variant: str, file: Path) -> None:
    if variant == "float32":
        _fuse(folder, file, attention_weights=True)
    elif variant == "int8":
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        fused = _made(folder / "onnxruntime-float32.onnx", partial(_fuse, folder, attention_weights=True))
        quantize_dynamic(
            str(fused), str(file), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Attention"],
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip
    else:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        # It knows MatMul only: attention that has taken in the weights of query, key and value would stay float.
        fused = _made(folder / "onnxruntime-apart.onnx", partial(_fuse, folder, attention_weights=False))
        model = onnx.load(fused)
        as_matmul(model)
        quantizer = MatMulNBitsQuantizer(
            model, bits=int(variant.removeprefix("nbits")), block_size=_BLOCK, is_symmetric=True,
            accuracy_level=_INT8_ACCUMULATION,
        )  # fmt: skip
        quantizer.process()
        quantizer.model.save_model_to_file(str(file))


def _fuse(folder: Path, file: Path, *, attention_weights: bool) -> None:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    options = FusionOptions(config["model_type"])
    options.use_multi_head_attention = not attention_weights
    optimized = optimizer.optimize_model(
        str(folder / "model.onnx"), model_type=config["model_type"], optimization_options=options,
        num_heads=config.get("num_attention_heads") or config["n_head"],
        hidden_size=config.get("hidden_size") or config["n_embd"],
    )  # fmt: skip
    optimized.save_model_to_file(str(file))


def as_matmul(model: Any) -> None:
    """Writes every ``Gemm`` with a weight as ``MatMul`` and ``Add``: the quantizer leaves ``Gemm`` in float32."""
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in reversed(list(enumerate(model.graph.node))):
        settings = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        scaled = settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0
        if node.op_type != "Gemm" or node.input[1] not in weights or settings.get("transA") or scaled:
            continue
        left, weight, bias = node.input
        if settings.get("transB"):
            turned = np.ascontiguousarray(onnx.numpy_helper.to_array(weights[weight]).T)
            weight = f"{weight}_turned"
            model.graph.initializer.append(onnx.numpy_helper.from_array(turned, weight))
        product = f"{node.output[0]}_product"
        model.graph.node.remove(node)
        model.graph.node.insert(index, onnx.helper.make_node("Add", [product, bias], node.output))
        model.graph.node.insert(index, onnx.helper.make_node("MatMul", [left, weight], [product], name=node.name))


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
