"""sentence-transformers as its users have it: PyTorch float32, and its ONNX and OpenVINO backends in int8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from text_turns import Embed, serve

_BATCHES = (8, 32)
_TEXTS = 300
"""Texts of the calibration: as many as the library reads."""
_FILES = {"onnx-int8": "model_qint8_avx512_vnni.onnx", "openvino-int8": "openvino_model_qint8_quantized.xml"}


def make(model: Path, variant: str) -> None:
    """Quantizes a model by the library's own export, into a copy of its folder that the library makes."""
    if variant == "torch" or _file(model, variant).is_file():
        return
    source, out = str(model / "sentence-transformers"), str(_folder(model, variant))
    if variant == "onnx-int8":
        from sentence_transformers import export_dynamic_quantized_onnx_model

        loaded = SentenceTransformer(source, backend="onnx", device="cpu", model_kwargs={"export": True})
        loaded.save_pretrained(out)
        export_dynamic_quantized_onnx_model(loaded, "avx512_vnni", out)
        return
    from sentence_transformers import export_static_quantized_openvino_model

    loaded = SentenceTransformer(source, backend="openvino", device="cpu", model_kwargs={"export": True})
    loaded.save_pretrained(out)
    texts = model / "calibration-texts"
    texts.mkdir(exist_ok=True)
    rows = (
        json.dumps({"text": f"Sentence {number} of {_TEXTS} that show how large activations are."})
        for number in range(_TEXTS)
    )
    (texts / "train.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    export_static_quantized_openvino_model(
        loaded, None, out, dataset_name=str(texts), dataset_config_name="default", dataset_split="train",
        column_name="text",
    )  # fmt: skip


def load(request: dict[str, Any]) -> Mapping[str, Embed]:
    """Returns the model at two sizes of batches; the library puts texts in order of length itself."""
    model, variant, threads = Path(request["folder"]), request["variant"], request["threads"]
    torch.set_num_threads(threads)
    if variant == "torch":
        loaded = SentenceTransformer(str(model / "sentence-transformers"), device="cpu")
    else:
        settings: dict[str, Any] = {"file_name": f"{variant.split('-')[0]}/{_FILES[variant]}"}
        if variant == "openvino-int8":
            settings["ov_config"] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        loaded = SentenceTransformer(
            str(_folder(model, variant)), backend=variant.split("-")[0], device="cpu", model_kwargs=settings
        )
    loaded.max_seq_length = request["longest"]
    return {f"batches of {batch}": partial(loaded.encode, batch_size=batch) for batch in _BATCHES}


def _folder(model: Path, variant: str) -> Path:
    return model / f"sentence-transformers-{variant}"


def _file(model: Path, variant: str) -> Path:
    return _folder(model, variant) / variant.split("-")[0] / _FILES[variant]


if __name__ == "__main__":
    serve(load, make=make, packages=("sentence-transformers", "torch", "transformers"))
