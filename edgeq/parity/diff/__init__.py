"""Finds the layer where a backend parts from PyTorch."""

from edgeq.parity.diff.backends import BACKENDS, BackendDiff, diff_layers

__all__ = ["BACKENDS", "BackendDiff", "diff_layers"]
