"""Who takes part: every engine with every setting worth having, beside edgeq and the limit of the machine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.speed import prepare
from benchmarks.speed.benchmarks import AVX2, Benchmark, multiply_adds

FLOAT_BITS = 32
OWN = "edgeq"
FLOOR = "int8 floor of this machine"
REFERENCE = "PyTorch float32"

_TORCH, _ONNX_RUNTIME = "torch_engine.py", "onnxruntime_engine.py"
_OPENVINO, _LLAMA, _CTRANSLATE = "openvino_engine.py", "llama_engine.py", "ctranslate2_engine.py"

PEERS = (
    (REFERENCE, _TORCH, "float32", FLOAT_BITS),
    ("PyTorch int8 dynamic", _TORCH, "int8", 8),
    ("ONNX Runtime float32", _ONNX_RUNTIME, "float32", FLOAT_BITS),
    ("ONNX Runtime int8 dynamic", _ONNX_RUNTIME, "int8", 8),
    ("ONNX Runtime MatMulNBits 8", _ONNX_RUNTIME, "nbits8", 8),
    ("ONNX Runtime MatMulNBits 4", _ONNX_RUNTIME, "nbits4", 4),
    ("ONNX Runtime MatMulNBits 2", _ONNX_RUNTIME, "nbits2", 2),
    ("OpenVINO float32", _OPENVINO, "float32", FLOAT_BITS),
    ("OpenVINO bfloat16", _OPENVINO, "bf16", 16),
    ("OpenVINO int8 post-training", _OPENVINO, "int8", 8),
    ("OpenVINO int8 post-training, rest bfloat16", _OPENVINO, "int8-bf16", 8),
    ("OpenVINO 8-bit weights", _OPENVINO, "weights8", 8),
    ("OpenVINO 4-bit weights", _OPENVINO, "weights4", 4),
    ("CTranslate2 float32", _CTRANSLATE, "float32", FLOAT_BITS),
    ("CTranslate2 int8", _CTRANSLATE, "int8", 8),
    ("CTranslate2 int8, rest bfloat16", _CTRANSLATE, "int8-bf16", 8),
    ("llama.cpp Q8_0", _LLAMA, "Q8_0", 8),
    ("llama.cpp Q4_0", _LLAMA, "Q4_0", 4),
    ("llama.cpp Q4_K", _LLAMA, "Q4_K_S", 4),
    ("llama.cpp Q2_K", _LLAMA, "Q2_K", 2),
    ("llama.cpp TQ2_0", _LLAMA, "TQ2_0", 2),
)
"""Name, script, variant and bits of a weight of every peer."""

_REWRITING = {
    _TORCH: ("float32", "int8"),
    _ONNX_RUNTIME: ("float32", "int8"),
    _OPENVINO: ("float32", "bf16", "weights8", "weights4"),
    _CTRANSLATE: ("float32", "int8", "int8-bf16"),
}
"""What the engines can do with an encoder-decoder: llama.cpp has none of that kind."""

LEAST_SIMILARITY = {FLOAT_BITS: 0.9999, 16: 0.999, 8: 0.95, 7: 0.95}
"""Cosine with the reference's output below which an engine computes something else; at fewer bits, random weights tell
nothing."""

_HELD_TO_AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "CT2_FORCE_CPU_ISA": "AVX2",
}  # fmt: skip
_CAN_BE_HELD = (_TORCH, _OPENVINO, _CTRANSLATE)
"""ONNX Runtime and llama.cpp have no such switch: what runs is chosen by the processor, or when they are built."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """An engine with one way to run the model.

    Attributes:
        name: Name in tables.
        script: File in ``engines``.
        variant: What the script is asked for.
        python: Interpreter of its environment.
        folder: The model as the engine reads it.
        bits: Bits of its weights, scales left out.
        environment: What its process gets beside the usual variables.
        batch: Texts in a call if not as many as the work says.
    """

    name: str
    script: str
    variant: str
    python: Path
    folder: Path
    bits: int
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    batch: int | None = None


def peers(work: Benchmark, *, models: Path, python: Path) -> list[Setup]:
    """Returns the peers of a work; the reference, to which outputs are compared, comes first.

    Args:
        work: The call.
        models: Folder where models are kept.
        python: Interpreter of the peers' environment.
    """
    only_avx2 = work.target == AVX2
    return [
        Setup(name, script, variant, python, models / work.model, bits, _HELD_TO_AVX2 if only_avx2 else {})
        for name, script, variant, bits in PEERS
        if work.kind != "rewrite" or variant in _REWRITING.get(script, ())
        if not only_avx2 or (script in _CAN_BE_HELD and "bf" not in variant)
    ]


def own(work: Benchmark, *, models: Path) -> list[Setup]:
    """Returns edgeq under every recipe of a work, and the floor."""
    found = [_own(work, recipe, models) for recipe in work.recipes]
    if work.beside_one:
        one = _own(work, work.recipes[0], models)
        found.append(dataclasses.replace(one, name=f"{one.name}, batch 1", batch=1))
    floor = f"{multiply_adds(work)}@{work.target}"
    return [*found, Setup(FLOOR, "floor_engine.py", floor, Path(sys.executable), models / work.model, 0)]


def own_name(recipe: str) -> str:
    """Returns edgeq's name in tables under a recipe."""
    return f"{OWN} {recipe.removeprefix('ptq-')}"


def _own(work: Benchmark, recipe: str, models: Path) -> Setup:
    folder = prepare.bundle_folder(work.model, recipe, target=work.target, root=models)
    bits = int(recipe.removeprefix("ptq-w").split("a")[0].split("e")[0])
    return Setup(own_name(recipe), "edgeq_engine.py", recipe, Path(sys.executable), folder, bits)
