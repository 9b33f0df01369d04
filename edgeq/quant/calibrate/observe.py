"""Reads what flows into the layers of two models, up to the layers that are next to be quantized."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgeq.quant.calibrate.blocks import PassEndedError
from edgeq.quant.calibrate.second_moments import SecondMoments

Run = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch, or a block on one call."""


@contextlib.contextmanager
def _hooks(model: nn.Module, names: Sequence[str], seen: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    def hook_of(name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            seen(name, arguments[0])

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def calls(model: nn.Module, run: Run, batch: Any, *, names: Sequence[str]) -> dict[str, int]:
    """Counts how often each layer runs in one pass; layers of a factor bank run once for each layer that they serve."""
    counts: collections.Counter[str] = collections.Counter()

    def seen(name: str, _x: torch.Tensor) -> None:
        counts[name] += 1

    with _hooks(model, names, seen):
        run(model, batch)
    return dict(counts)


@torch.no_grad()
def next_group(model: nn.Module, run: Run, batch: Any, *, names: Sequence[str]) -> list[str]:
    """Returns the first of some layers to run, and those that read the same tensor as it does.

    Args:
        model: The model.
        run: Runs it.
        batch: Any batch.
        names: Layers that are left.
    """
    group: list[str] = []
    first: list[torch.Tensor] = []

    def seen(name: str, x: torch.Tensor) -> None:
        if first and x is not first[0]:
            raise PassEndedError
        first.append(x)
        group.append(name)

    with _hooks(model, names, seen), contextlib.suppress(PassEndedError):
        run(model, batch)
    return list(dict.fromkeys(group))


@torch.no_grad()
def inputs_of(model: nn.Module, run: Run, batch: Any, *, name: str, count: int) -> list[torch.Tensor]:
    """Returns what one layer reads in a pass that ends there.

    Args:
        model: The model.
        run: Runs it.
        batch: What it runs on.
        name: The layer.
        count: Times that the layer runs.

    Returns:
        ``count`` tensors ``[..., K]``.
    """
    found: list[torch.Tensor] = []

    def seen(_name: str, x: torch.Tensor) -> None:
        found.append(x)
        if len(found) == count:
            raise PassEndedError

    with _hooks(model, [name], seen), contextlib.suppress(PassEndedError):
        run(model, batch)
    return found


@torch.no_grad()
def read_moments(
    model: nn.Module, run: Run, batches: Sequence[Any], *, names: Sequence[str]
) -> dict[str, SecondMoments]:
    """Sums over all that layers read in a model; those that do not run are left out.

    Args:
        model: The model.
        run: Runs it.
        batches: What it runs on.
        names: The layers.
    """
    found: dict[str, SecondMoments] = {}

    def seen(name: str, x: torch.Tensor) -> None:
        found.setdefault(name, SecondMoments(x.shape[-1])).add(x, x)

    with _hooks(model, names, seen):
        for batch in batches:
            run(model, batch)
    return found


def groups(
    model: nn.Module, run: Run, batch: Any, *, names: Sequence[str], counts: Mapping[str, int]
) -> Iterator[tuple[list[str], int]]:
    """Yields the layers to quantize in the order in which they run, those with the same input together.

    Args:
        model: The model that is being calibrated; each group must be done before the next one is asked for.
        run: Runs it.
        batch: Any batch.
        names: The layers; those that never run are left out.
        counts: How often each layer runs in a pass.

    Yields:
        Names, and how often these layers run in a pass.
    """
    left = [name for name in names if counts.get(name)]
    while left:
        found = next_group(model, run, batch, names=left)
        group = [name for name in found if counts[name] == counts[found[0]]]
        yield group, counts[group[0]]
        left = [name for name in left if name not in group]
