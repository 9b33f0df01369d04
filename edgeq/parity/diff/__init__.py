"""Finds the first layer where a backend differs from PyTorch."""

from edgeq.parity.diff.backends import BACKENDS, diff_layers

__all__ = ["BACKENDS", "diff_layers"]
