"""Second moments of a layer's inputs: all that the closed-form methods need to know of the calibration texts."""

from __future__ import annotations

import torch


class SecondMoments:
    """Sums over the tokens that a layer has read, in the float model and in the quantized one.

    With ``x`` the input in the float model and ``z`` the input in the model that is quantized so far, the squared
    error of a layer's output over all tokens, ``sum |W x + b - (Q z + c)|^2``, depends on the tokens through the
    sums kept here alone.

    Attributes:
        tokens: Tokens that were added.
        inputs: ``sum z``: float64, ``[K]``.
        targets: ``sum x``: float64, ``[K]``.
        square: ``sum z z^T``: float64, ``[K, K]``.
        cross: ``sum x z^T``: float64, ``[K, K]``.

    Args:
        columns: K.
    """

    def __init__(self, columns: int) -> None:
        self.tokens = 0
        self.inputs = torch.zeros(columns, dtype=torch.float64)
        self.targets = torch.zeros(columns, dtype=torch.float64)
        self.square = torch.zeros(columns, columns, dtype=torch.float64)
        self.cross = torch.zeros(columns, columns, dtype=torch.float64)

    def add(self, quantized: torch.Tensor, original: torch.Tensor) -> None:
        """Adds tokens.

        Args:
            quantized: ``z``: float32, ``[..., K]``.
            original: ``x``, of the same shape.
        """
        z, x = quantized.flatten(0, -2).cpu(), original.flatten(0, -2).cpu()
        self.tokens += z.shape[0]
        self.inputs += z.sum(dim=0, dtype=torch.float64)
        self.targets += x.sum(dim=0, dtype=torch.float64)
        self.square += z.T @ z
        self.cross += x.T @ z

    def centred(self, *, shift: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the means ``E[z z^T]`` and ``E[x z^T]``, both float64 ``[K, K]``.

        Args:
            shift: Whether the layer has a bias that makes up for the means of its inputs; they are then taken out.
        """
        count = max(1, self.tokens)
        square, cross = self.square / count, self.cross / count
        if shift:
            mean = self.inputs / count
            square = square - torch.outer(mean, mean)
            cross = cross - torch.outer(self.targets / count, mean)
        return square, cross
