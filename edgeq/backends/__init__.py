"""A model somewhere that runs named arrays: PyTorch, ONNX, a bundle here, a bundle under an emulator."""

from edgeq.arrays import Arrays, Backend, run_all

__all__ = ["Arrays", "Backend", "run_all"]
