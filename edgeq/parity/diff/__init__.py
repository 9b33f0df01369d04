"""Finds the first layer where a backend differs from PyTorch."""

from edgeq.parity.diff.backends import BACKENDS, BackendDiff, diff_layers

__all__ = ["BACKENDS", "BackendDiff", "diff_layers"]
