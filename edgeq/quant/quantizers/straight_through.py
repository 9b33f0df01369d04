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
        slope: The derivative of each decoded weight by its parameter, over ``factor``: float32, ``[N, K]``.
        factor: What all slopes of one parameter have in common: a number, or float32 of the parameter's shape.
    """

    parameter: torch.Tensor
    slope: torch.Tensor
    factor: torch.Tensor | float = 1.0


@dataclasses.dataclass(frozen=True)
class GradientRule:
    """What backward does.

    Attributes:
        inside: float32 ``[N, K]``, 1 where the gradient passes to the weight, else 0; None for everywhere.
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
    parameters = [term.parameter for term in rule.learned]
    result: torch.Tensor = _StraightThrough.apply(decoded, weight, rule, *parameters)
    return result


class _StraightThrough(torch.autograd.Function):
    """Forward is its first argument; backward follows :class:`GradientRule`."""

    @staticmethod
    def forward(
        ctx: Any, decoded: torch.Tensor, weight: torch.Tensor, rule: GradientRule, *parameters: torch.Tensor
    ) -> torch.Tensor:
        del weight  # only its gradient matters
        ctx.save_for_backward(rule.inside, *(term.slope for term in rule.learned))
        ctx.factors = [term.factor for term in rule.learned]
        ctx.sizes = [parameter.numel() for parameter in parameters]
        return decoded.view_as(decoded)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = outputs
        inside, *slopes = ctx.saved_tensors
        of_weight = gradient if inside is None else gradient * inside
        of_parameters = []
        for size, slope, factor in zip(ctx.sizes, slopes, ctx.factors, strict=True):
            product = gradient * slope
            total = product.sum().reshape(1) if size == 1 else product.flatten(1).sum(dim=1)
            of_parameters.append(total * factor)
        return (None, of_weight, None, *of_parameters)
