"""The short trainings of calibration: AdamW, a warm-up, a rate that falls to zero, and no state to come back to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from edgeq.errors import EdgeqError
from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.state import grid_quantizer
from edgeq.quant.trainable_layers import TrainableEmbedding, TrainableLinear

Item = TypeVar("Item")
_BETAS = (0.9, 0.95)
_WARMUP = 0.05
_CLIP = 1.0


@dataclasses.dataclass(frozen=True)
class Rates:
    """Largest learning rates.

    Attributes:
        weights: Of quantized weights, in steps between their levels: 0.01 moves a weight by a hundredth of a level in a
            step of the optimizer, whatever its bits.
        scales: Of the logarithms of scales.
        others: Of biases and norms; of matrices that stay float in proportion to their root mean square.
    """

    weights: float
    scales: float
    others: float


def parameter_groups(model: nn.Module, rates: Rates) -> list[dict[str, Any]]:
    """Returns the trained parameters of a model or block with their rates, as an optimizer takes them."""
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for layer in model.modules():
        if not isinstance(layer, TrainableLinear | TrainableEmbedding):
            continue
        quantizer = grid_quantizer(layer)
        step = float(quantizer.scale().mean())
        if rates.weights and step > 0:
            groups.append({"params": [layer.weight], "lr": rates.weights * step})
        if rates.scales:
            groups.append({"params": [quantizer.log_step], "lr": rates.scales})
        taken |= {id(layer.weight), id(quantizer.log_step)}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken and parameter.requires_grad]
    vectors = [parameter for parameter in others if parameter.ndim < 2]
    if vectors and rates.others:
        groups.append({"params": vectors, "lr": rates.others})
    for matrix in (parameter for parameter in others if parameter.ndim >= 2 and rates.others):
        # Tables of positions are far smaller than norms and biases: they move in proportion.
        size = float(matrix.detach().square().mean().sqrt())
        if size > 0:
            groups.append({"params": [matrix], "lr": rates.others * size})
    return groups


def minimise(
    loss: Callable[[Item], torch.Tensor],
    items: Iterable[Item],
    *,
    groups: list[dict[str, Any]],
    steps: int,
    what: str,
    progress: Progress = silent,
) -> float:
    """Trains parameters in place.

    Args:
        loss: Of a batch, a scalar with its gradient.
        items: Batches, at least as many as there are steps.
        groups: What is trained, and the largest rate of each; see :func:`parameter_groups`.
        steps: Number of steps.
        what: What progress and errors call the training.
        progress: Told how many steps are done.

    Returns:
        The mean loss of the last tenth of the steps.

    Raises:
        EdgeqError: If the loss is not a number.
    """
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=_BETAS, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    last: list[float] = []
    for step, item in zip(range(steps), items, strict=False):
        progress(what, step, steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * _rate(step, steps)
        value = loss(item)
        number = float(value.detach())
        if not math.isfinite(number):
            raise EdgeqError(
                f"{what} stopped at step {step + 1} of {steps}, where the loss is {number}; lower the recipe's rates"
            )
        last.append(number)
        value.backward()
        nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    progress(what, steps, steps)
    tail = last[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _rate(step: int, steps: int) -> float:
    """Rises linearly, then falls as a cosine to zero."""
    warm = max(1, round(_WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
