"""ONNX Runtime: MatMulNBits of 8 and 4 bits, by rounding or GPTQ, with float32 activations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, matmul_nbits_quantizer
from peer import Run, serve

from onnxruntime_engine import as_matmul  # isort: skip - peer.py puts its folder on the path

_BLOCK = 128


class OnnxRuntime:
    """Variants are ``BITS-METHOD``: ``nearest``, ``tables`` (rounding, tables too), ``gptq`` (of 4 bits alone)."""

    packages = ("onnxruntime", "onnx", "optimum-onnx")

    def prepare(self, folder: Path, *, decoder: bool) -> None:
        """Exports the checkpoint; see :class:`peer.Peer`."""
        from optimum.exporters.onnx import main_export

        if (folder / "onnx").is_dir():
            return
        made = folder / "onnx-unfinished"
        shutil.rmtree(made, ignore_errors=True)
        task = "text-generation" if decoder else "feature-extraction"
        main_export(str(folder / "float"), output=made, task=task, do_validation=False, no_post_process=True)
        made.rename(folder / "onnx")

    def quantize(self, folder: Path, variant: str, *, texts: list[np.ndarray]) -> int:
        """Makes a variant; see :class:`peer.Peer`."""
        model = onnx.load(folder / "onnx" / "model.onnx")
        as_matmul(model)
        bits, method = variant.split("-")
        quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
            model, bits=int(bits), block_size=_BLOCK, is_symmetric=True, algo_config=_config(bits, method, texts, model)
        )
        quantizer.process()
        file = folder / "onnx" / f"{variant}.onnx"
        quantizer.model.save_model_to_file(str(file))
        return sum(len(onnx.numpy_helper.to_array(one).tobytes()) for one in quantizer.model.model.graph.initializer)

    def load(self, folder: Path, variant: str, *, threads: int) -> Run:
        """Returns what runs a variant; see :class:`peer.Peer`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        file = str(folder / "onnx" / f"{variant}.onnx")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return lambda ids, mask: session.run(None, _feed(names, ids, mask))[0]


def _config(bits: str, method: str, texts: list[np.ndarray], model: onnx.ModelProto) -> Any:
    if method == "gptq":
        names = [entry.name for entry in model.graph.input]
        reader = _Texts([_feed(names, text, np.ones_like(text)) for text in texts])
        return matmul_nbits_quantizer.GPTQWeightOnlyQuantConfig(reader, block_size=_BLOCK)
    kinds = ("MatMul", "Gather") if method == "tables" else ("MatMul",)
    return matmul_nbits_quantizer.DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK, is_symmetric=True, bits=int(bits), op_types_to_quantize=kinds
    )


class _Texts(CalibrationDataReader):
    """Calibration texts, one after the other."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)

    def __deepcopy__(self, _memo: Any) -> _Texts:
        return self  # the quantizer copies its reader, and an iterator cannot be copied


def _feed(names: list[str], ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    positions = np.ascontiguousarray(np.broadcast_to(np.arange(ids.shape[1]), ids.shape))
    possible = {
        "input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), "position_ids": positions,
    }  # fmt: skip
    return {name: possible[name] for name in names}


if __name__ == "__main__":
    serve(OnnxRuntime())
