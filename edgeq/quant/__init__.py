"""Quantizers: grids, scale search, activation quantization, low-bit modules, and how they enter a model."""
