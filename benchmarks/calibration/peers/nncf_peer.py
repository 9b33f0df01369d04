"""NNCF: weights of 8 and 4 bits, by their largest value or with calibration texts, run by OpenVINO in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from peer import Run, serve

from openvino_engine import FLOAT, compiled_model, convert, feed  # isort: skip - peer.py puts its folder on the path

_ROW, _GROUP = -1, 128
"""Weights that share a scale: a row, as in edgeq, or so many of a row."""
_METHODS: dict[str, dict[str, bool]] = {
    "nearest": {},
    "scale": {"scale_estimation": True},
    "awq": {"awq": True, "scale_estimation": True},
    "gptq": {"gptq": True, "scale_estimation": True},
}


class Nncf:
    """Variants are ``int8``, ``int8-activations``, ``int4-METHOD``, ``int4-128-METHOD`` and ``mixed-RATIO``."""

    packages = ("openvino", "nncf", "optimum-intel")

    def prepare(self, folder: Path, *, decoder: bool) -> None:
        """Converts the checkpoint; see :class:`peer.Peer`."""
        convert(folder / "float", folder / "openvino", all_logits=decoder)

    def quantize(self, folder: Path, variant: str, *, texts: list[np.ndarray]) -> int:
        """Makes a variant; see :class:`peer.Peer`."""
        model = openvino.Core().read_model(folder / "openvino" / f"{FLOAT}.xml")
        data = nncf.Dataset([feed(model, text, 0) for text in texts])
        if variant == "int8-activations":
            made = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts))
        else:
            made = nncf.compress_weights(model, **_settings(variant, data, len(texts)))
        file = folder / "openvino" / f"{variant}.xml"
        openvino.save_model(made, file, compress_to_fp16=False)
        return file.with_suffix(".bin").stat().st_size

    def load(self, folder: Path, variant: str, *, threads: int) -> Run:
        """Returns what runs a variant; see :class:`peer.Peer`."""
        compiled = compiled_model({"folder": str(folder), "variant": variant, "threads": threads})
        asked = compiled.create_infer_request()
        return lambda ids, mask: np.array(asked.infer(feed(compiled, ids, 0, mask=mask))[0])


def _settings(variant: str, data: nncf.Dataset, texts: int) -> dict[str, Any]:
    """Returns the arguments of ``nncf.compress_weights``."""
    if variant == "int8":
        return {"mode": nncf.CompressWeightsMode.INT8_SYM}
    four = {"mode": nncf.CompressWeightsMode.INT4_SYM, "all_layers": True, "ratio": 1.0, "group_size": _ROW}
    if variant.startswith("mixed-"):
        sensitivity = nncf.SensitivityMetric.HESSIAN_INPUT_ACTIVATION
        share = float(variant.removeprefix("mixed-"))
        return four | {"ratio": share, "sensitivity_metric": sensitivity, "dataset": data, "subset_size": texts}
    method = _METHODS[variant.split("-")[-1]]
    four |= {"group_size": _GROUP} if "-128-" in variant else {}
    return four | method | ({"dataset": data, "subset_size": texts} if method else {})


if __name__ == "__main__":
    serve(Nncf())
