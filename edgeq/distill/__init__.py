"""Distillation: losses that pull a compressed student towards its float teacher."""
