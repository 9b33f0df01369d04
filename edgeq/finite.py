"""Refuses numbers that are none, wherever in a model they stand."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from edgeq.errors import FormatError

_VALUES_AT_ONCE = 1 << 20


def is_finite(tensor: torch.Tensor) -> bool:
    """Tells whether a tensor holds neither NaN nor infinity, without copies of all of it.

    Args:
        tensor: Floats of any shape; looked at in parts, since ``torch.isfinite`` takes twice its bytes.
    """
    return all(bool(torch.isfinite(part).all()) for part in tensor.detach().reshape(-1).split(_VALUES_AT_ONCE))


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], *, where: str) -> None:
    """Looks at every floating-point tensor.

    A NaN in a bias or a norm may vanish on its way through a quantizer, and then gives finite, wrong results.

    Args:
        tensors: Tensors by name.
        where: The file or folder, for messages.

    Raises:
        FormatError: If one of them holds a NaN or an infinity.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and not is_finite(tensor):
            count = int((~torch.isfinite(tensor)).sum())
            raise FormatError(
                f"{where}: tensor {name!r} holds {count} of {tensor.numel()} values that are NaN or infinite; the "
                "weights are damaged, get or train them again"
            )
