"""Whether a device multiplies bfloat16 by itself."""

from __future__ import annotations

import torch


def multiplies_bfloat16(device_type: str) -> bool:
    """Returns whether matmuls in bfloat16 are worth their rounding there.

    A processor without instructions for bfloat16 converts every number on the way in and out: on one with AVX2 alone a
    matmul of a training takes five times as long as in float32.

    Args:
        device_type: Torch's word for the device, such as ``cpu`` or ``cuda``.
    """
    if device_type != "cpu":
        return True
    return any(bool(there) for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
