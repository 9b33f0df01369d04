"""OpenVINO: float32, bfloat16, int8 after NNCF's post-training quantization, and int8 or 4-bit weights.

The model is converted by optimum-intel, which keeps a decoder's cache inside the engine. Compressed weights are
multiplied with activations quantized in groups of 128, the fastest of the sizes that OpenVINO offers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13
from turns import Call, Restore, ids, nothing, serve

_CALIBRATION_TEXTS = 16
_CALIBRATION_TOKENS = 128
_GROUP = 128
FLOAT = "float32"


def make(model: Path, variant: str) -> None:
    """Writes the file of one variant; the float file first, which the others start from."""
    folder = model / "openvino"
    if _is_rewriting(model):
        _convert_rewriting(model, variant)
        return
    convert(model / "float", folder)
    file = folder / f"{_file_name(variant)}.xml"
    if file.is_file():
        return
    import nncf

    read = openvino.Core().read_model(folder / f"{FLOAT}.xml")
    if variant.startswith("int8"):
        vocabulary = json.loads((model / "float" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        texts = np.random.default_rng(1).integers(0, vocabulary, (_CALIBRATION_TEXTS, 1, _tokens(model)))
        data = nncf.Dataset([feed(read, text, 0) for text in texts])
        made = nncf.quantize(
            read, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=_CALIBRATION_TEXTS, fast_bias_correction=True,
        )  # fmt: skip
    elif variant == "weights8":
        made = nncf.compress_weights(read, mode=nncf.CompressWeightsMode.INT8_SYM)
    else:
        made = nncf.compress_weights(
            read, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=_GROUP, ratio=1.0, all_layers=True
        )
    openvino.save_model(made, file, compress_to_fp16=False)


def compiled_model(request: dict[str, Any]) -> openvino.CompiledModel:
    """Returns the model of a request's ``folder`` and ``variant``, for its ``threads``."""
    core, file = openvino.Core(), Path(request["folder"]) / "openvino" / f"{_file_name(request['variant'])}.xml"
    return core.compile_model(core.read_model(file), "CPU", _settings(request))


def _settings(request: dict[str, Any]) -> dict[str, str]:
    variant = request["variant"]
    return {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(request["threads"]),
        "INFERENCE_PRECISION_HINT": "bf16" if variant.endswith("bf16") else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(_GROUP if variant.startswith("weights") else 0),
    }  # fmt: skip


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    if request["kind"] == "rewrite":
        return _rewriting(request), nothing
    compiled = compiled_model(request)
    asked, given, tokens = compiled.create_infer_request(), ids(request), request["tokens"]
    output = 0
    if request["kind"] == "encode":
        inputs = feed(compiled, given, 0)
        return lambda: asked.infer(inputs, share_inputs=True, share_outputs=True)[output], nothing
    prompt = feed(compiled, given[:, :tokens], 0)

    def read_prompt() -> np.ndarray:
        return asked.infer(prompt, share_inputs=True, share_outputs=True)[output][:, -1]

    if request["kind"] == "prefill":
        return read_prompt, asked.reset_state
    read_prompt()
    # The cache lives in the engine and grows: the state after the prompt is put back before every step.
    kept = [(state, _copy(state.state)) for state in asked.query_state()]
    step = feed(compiled, given[:, tokens:], tokens)

    def restore() -> None:
        for state, value in kept:
            state.state = value

    return lambda: asked.infer(step, share_inputs=True, share_outputs=True)[output][:, -1], restore


def _rewriting(request: dict[str, Any]) -> Call:
    """Encoder-decoders run through optimum's class, as their users have them."""
    from optimum.intel import OVModelForSeq2SeqLM
    from rewriting import rewriting

    folder = _rewriting_folder(Path(request["folder"]), request["variant"])
    return rewriting(OVModelForSeq2SeqLM.from_pretrained(folder, ov_config=_settings(request)), request)


def _is_rewriting(model: Path) -> bool:
    return bool(json.loads((model / "float" / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder"))


def _rewriting_folder(model: Path, variant: str) -> Path:
    return model / f"openvino-{_file_name(variant)}"


def _convert_rewriting(model: Path, variant: str) -> None:
    """Writes both graphs of an encoder-decoder, with compressed weights where the variant has such."""
    from optimum.intel import OVModelForSeq2SeqLM, OVWeightQuantizationConfig

    folder = _rewriting_folder(model, variant)
    if folder.is_dir():
        return
    quantization: dict[str, Any] = {"load_in_8bit": False}
    if variant.startswith("weights"):
        bits = int(variant.removeprefix("weights"))
        grouped = {"group_size": _GROUP, "ratio": 1.0, "all_layers": True} if bits < 8 else {}
        quantization = {"quantization_config": OVWeightQuantizationConfig(bits=bits, sym=True, **grouped)}
    made = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    kind = OVModelForSeq2SeqLM.from_pretrained(model / "float", export=True, compile=False, **quantization)
    kind.save_pretrained(made)
    made.rename(folder)


def _file_name(variant: str) -> str:
    """Bfloat16 is a setting, not a file."""
    return FLOAT if variant == "bf16" else variant.removesuffix("-bf16")


def convert(checkpoint: Path, folder: Path, *, all_logits: bool = False) -> None:
    """Writes the float model of a checkpoint, unless it is there.

    Args:
        checkpoint: The checkpoint.
        folder: Where it is written.
        all_logits: Whether a decoder gives the logits of all tokens, and keeps no cache; else those of the last one.
    """
    if (folder / f"{FLOAT}.xml").is_file():
        return
    from optimum.intel import OVModelForCausalLM, OVModelForFeatureExtraction

    decoder = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["model_type"] == "gpt2"
    kind = OVModelForCausalLM if decoder else OVModelForFeatureExtraction
    made = folder.with_name("openvino-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    cache = {"use_cache": not all_logits} if decoder else {}
    kind.from_pretrained(checkpoint, export=True, compile=False, load_in_8bit=False, **cache).save_pretrained(made)
    model = openvino.Core().read_model(made / "openvino_model.xml")
    if decoder and not all_logits:
        _last_logits_only(model)
    openvino.save_model(model, made / f"{FLOAT}.xml", compress_to_fp16=False)
    del model
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (made / name).unlink()
    made.rename(folder)


def _last_logits_only(model: openvino.Model) -> None:
    """Lets the output head read the last token: what a generator computes."""
    head = model.output("logits").get_node().input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    states = head.input_value(0)
    start, stop, stride, axis = (opset13.constant([value], np.int64) for value in (-1, 2**31 - 1, 1, 1))
    head.input(0).replace_source_output(opset13.slice(states, start, stop, stride, axis).output(0))
    model.validate_nodes_and_infer_types()


def _tokens(model: Path) -> int:
    config = json.loads((model / "float" / "config.json").read_text(encoding="utf-8"))
    return min(_CALIBRATION_TOKENS, config.get("max_position_embeddings") or config["n_positions"])


def feed(model: Any, new: np.ndarray, past: int, *, mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns what ``model`` asks for, of all that a BERT or GPT-2 may ask for; without a mask, no token is padding."""
    batch, tokens = new.shape
    possible = {
        "input_ids": new,
        "attention_mask": np.ones((batch, past + tokens), np.int64) if mask is None else mask,
        "token_type_ids": np.zeros_like(new),
        "position_ids": np.ascontiguousarray(np.broadcast_to(np.arange(past, past + tokens), new.shape)),
        "beam_idx": np.arange(batch, dtype=np.int32),
    }
    return {port.get_any_name(): possible[port.get_any_name()] for port in model.inputs}


def _copy(tensor: openvino.Tensor) -> openvino.Tensor:
    return openvino.Tensor(np.array(tensor.data))


if __name__ == "__main__":
    serve(load, make=make, packages=("openvino", "nncf", "optimum-intel"))
