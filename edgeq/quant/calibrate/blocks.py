"""The blocks of two models side by side: each block runs alone on what the blocks in front of it gave."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from edgeq.models import LayerStack
from edgeq.quant.calibrate.state import Batch, CalibrationState, Run


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of one call of a block.

    Attributes:
        arguments: By position.
        named: By name.
    """

    arguments: tuple[Any, ...]
    named: dict[str, Any]

    def following(self, output: Any) -> Call:
        """Returns the call of the next block of the stack: the state is another one, all else is the same."""
        state = output[0] if isinstance(output, tuple) else output
        if self.arguments:
            return dataclasses.replace(self, arguments=(state, *self.arguments[1:]))
        return dataclasses.replace(self, named={**self.named, "hidden_states": state})


@dataclasses.dataclass
class Block:
    """One block of both models.

    Attributes:
        name: Its module name.
        model: The block that is being calibrated.
        reference: The float block.
        calls: What the one is called with, for each batch.
        reference_calls: What the other is called with.
    """

    name: str
    model: nn.Module
    reference: nn.Module
    calls: list[Call]
    reference_calls: list[Call]


def run_block(block: nn.Module, call: Call) -> torch.Tensor:
    """Runs a block and returns its state: float32, ``[batch, sequence, width]``."""
    output = block(*call.arguments, **call.named)
    state: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return state


def blocks_of(state: CalibrationState, stack: LayerStack, batches: Sequence[Batch]) -> Iterator[Block]:
    """Yields the blocks of a stack; each must be calibrated before the next one is asked for.

    Args:
        state: The models.
        stack: The blocks.
        batches: Calibration texts.
    """
    name = stack.block(0)
    calls = [first_call(state.model, state.run, batch, block=name) for batch in batches]
    reference_calls = [first_call(state.reference, state.run, batch, block=name) for batch in batches]
    for index in range(stack.depth):
        name = stack.block(index)
        own, other = state.model.get_submodule(name), state.reference.get_submodule(name)
        block = Block(name, own, other, calls, reference_calls)
        yield block
        if index + 1 < stack.depth:
            calls = _advanced(block.model, calls)
            reference_calls = _advanced(block.reference, reference_calls)


@torch.no_grad()
def first_call(model: nn.Module, run: Run, batch: Batch, *, block: str) -> Call:
    """Returns what a block is called with in a pass that ends there."""
    found: list[Call] = []

    def hook(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(Call(arguments, dict(named)))
        raise PassEndedError

    handle = model.get_submodule(block).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with contextlib.suppress(PassEndedError):
            run(model, batch)
    finally:
        handle.remove()
    return found[0]


class PassEndedError(Exception):
    """Ends a forward pass once all that was to be read has been read; never leaves this package."""


@torch.no_grad()
def _advanced(block: nn.Module, calls: list[Call]) -> list[Call]:
    return [call.following(run_block(block, call)) for call in calls]
