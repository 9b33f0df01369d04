"""Gradients of rounding: the decoded weights forward, a rule that the method chooses backward.

Rounding has the derivative zero nearly everywhere, so every method replaces it. There are two replacements, and
they are never mixed silently:

* ``identity``: the gradient passes to every weight. Used by XTC (DeepSpeed's compression library) and LAQ.
* ``clipped``: the gradient passes to the weights inside the clip range only. Used by QuantGPT, PACT, LSQ, TernaryBERT.

``method`` is the paper's choice among them; ``pact`` gives a learned clip PACT's gradient, for ablations.

Numbers that a method learns (a clip factor, a step) get the sum of the incoming gradient times a slope, the
method's own derivative of each decoded weight.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class LearnedTerm:
    """One learned parameter of a quantizer and how each decoded weight depends on it.

    Attributes:
        parameter: float32, ``[1]`` for the matrix or ``[N]`` for its rows.
        slope: The derivative of each decoded weight by its parameter: float32, ``[N, K]``.
    """

    parameter: torch.Tensor
    slope: torch.Tensor


@dataclasses.dataclass(frozen=True)
class GradientRule:
    """What backward does.

    Attributes:
        inside: bool ``[N, K]``, true where the gradient passes to the weight; None for everywhere.
        learned: The method's learned parameters.
    """

    inside: torch.Tensor | None = None
    learned: tuple[LearnedTerm, ...] = ()


def straight_through(decoded: torch.Tensor, weight: torch.Tensor, rule: GradientRule) -> torch.Tensor:
    """Returns ``decoded`` bit for bit, with the gradients of ``rule``.

    Args:
        decoded: float32, ``[N, K]``: the weights that the stored codes stand for.
        weight: The latent weights, ``[N, K]``.
        rule: Where the gradient goes.
    """
    pairs = [tensor for term in rule.learned for tensor in (term.parameter, term.slope)]
    result: torch.Tensor = _StraightThrough.apply(decoded, weight, rule.inside, *pairs)
    return result


class _StraightThrough(torch.autograd.Function):
    """Forward is its first argument; backward follows :class:`GradientRule`."""

    @staticmethod
    def forward(
        ctx: Any, decoded: torch.Tensor, weight: torch.Tensor, inside: torch.Tensor | None, *pairs: torch.Tensor
    ) -> torch.Tensor:
        del weight  # only its gradient matters
        parameters, slopes = pairs[0::2], pairs[1::2]
        ctx.save_for_backward(inside, *slopes)
        ctx.sizes = [parameter.numel() for parameter in parameters]
        return decoded.view_as(decoded)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = outputs
        inside, *slopes = ctx.saved_tensors
        of_weight = gradient if inside is None else gradient * inside
        of_pairs: list[torch.Tensor | None] = []
        for size, slope in zip(ctx.sizes, slopes, strict=True):
            product = gradient * slope
            of_pairs += [product.sum().reshape(1) if size == 1 else product.sum(dim=1), None]
        return (None, of_weight, None, *of_pairs)
