"""Refuses numbers that are none, wherever in a model they stand."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from edgeq.errors import FormatError


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
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise FormatError(
                f"{where}: tensor {name!r} holds {count} of {tensor.numel()} values that are NaN or infinite; the "
                "weights are damaged, get or train them again"
            )
