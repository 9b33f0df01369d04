"""Quantizers: grids, scale search, activations, low-bit modules, and how they enter a model, at once or by training."""
