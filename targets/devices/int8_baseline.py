"""ONNX Runtime's own dynamic int8 quantization, with its defaults for weights and activations, as a program.

It holds a model several times, and so runs in a process of its own: ``python -m edgeq.targets.devices.int8_baseline
FLOAT.onnx OUT.onnx``.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from edgeq.errors import EdgeqError

_SHOWN = 200


def quantize_elsewhere(file: Path, out: Path) -> None:
    """Quantizes a model in another process.

    Args:
        file: The float model.
        out: File to write.

    Raises:
        EdgeqError: If ONNX Runtime cannot quantize it; the message is what it says.
    """
    command = [sys.executable, "-m", "edgeq.targets.devices.int8_baseline", str(file), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise EdgeqError((said[-1] if said else f"exit code {done.returncode}")[:_SHOWN])


def quantize(file: Path, out: Path) -> None:
    """Quantizes a model in this process."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preprocessing that its own docs call optional
    quantize_dynamic(
        str(file),
        str(out),
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": 1},
    )


if __name__ == "__main__":
    quantize(Path(sys.argv[1]), Path(sys.argv[2]))
