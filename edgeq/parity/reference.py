"""PyTorch, the reference: clean, under noise, and with the input of every low-bit layer recorded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.backends import Arrays, Backend
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint
from edgeq.export.ops.operator import NodeFormat
from edgeq.models import TorchEncoder
from edgeq.quant.int8_attention import Int8Attention, Int8SelfAttention, int8_attention_names
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear, PackedModule
from edgeq.rounding import ulp_noise, with_noise


@dataclasses.dataclass(frozen=True)
class RecordedLayer:
    """A low-bit layer of the checkpoint, and what went in and out of it in one run.

    Attributes:
        name: Module name.
        kind: The operator that it is exported as.
        format: Its matrix and activation.
        constants: Packed weights, scale, and for linear layers bias and possibly the activation scale.
        value: Its input: float32 ``[..., K]`` or int64 of any shape.
        output: Its output: float32 ``[..., N]``; of a table that scales what it looks up, before that.
    """

    name: str
    kind: str
    format: NodeFormat
    constants: tuple[np.ndarray, ...]
    value: np.ndarray
    output: np.ndarray


@dataclasses.dataclass(frozen=True)
class RecordedAttention:
    """Int8 attention of the checkpoint, and what went in and out of it in one run.

    Attributes:
        name: Module name.
        heads: Number of heads.
        inputs: Queries, keys and values, float32 ``[batch, sequence, width]``, and the mask, float32
            ``[batch, 1, 1, sequence]``.
        output: float32 ``[batch, sequence, width]``.
    """

    name: str
    heads: int
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray

    @property
    def scale(self) -> float:
        """Factor on the dot products."""
        return float((self.output.shape[-1] // self.heads) ** -0.5)


@dataclasses.dataclass(frozen=True)
class Call:
    """What went in and out of a module in one run: its first argument, and its result."""

    value: np.ndarray
    output: np.ndarray


class Reference:
    """A loaded checkpoint, float or compressed, as the reference of a parity run.

    Args:
        checkpoint: The checkpoint.
        backend: Runs its model; an encoder's if not given.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend | None = None) -> None:
        self.checkpoint = checkpoint
        self._model: nn.Module = checkpoint.model
        self._backend = backend or _encoder(checkpoint)

    def run(self, feeds: Sequence[Arrays]) -> list[Arrays]:
        """Runs the model on each feed."""
        return [self._backend(feed) for feed in feeds]

    def run_with_noise(self, feeds: Sequence[Arrays], *, seed: int) -> list[Arrays]:
        """Runs the model while every input of a linear layer moves by -1, 0 or +1 ulp."""
        with noise_in(self._model, seed):
            return self.run(feeds)

    def record(self, feed: Arrays) -> dict[str, RecordedLayer]:
        """Runs one feed and returns every low-bit layer that took part, by module name."""
        recorded: dict[str, RecordedLayer] = {}
        with contextlib.ExitStack() as stack:
            for name, module in self._model.named_modules():
                if isinstance(module, PackedModule):
                    stack.enter_context(_recording(name, module, recorded))
            self.run([feed])
        return recorded

    def record_attention(self, feed: Arrays) -> dict[str, RecordedAttention]:
        """Runs one feed and returns all int8 attention that took part, by module name."""
        recorded: dict[str, RecordedAttention] = {}
        with contextlib.ExitStack() as stack:
            for name, module in self._model.named_modules():
                if isinstance(module, Int8Attention):
                    stack.enter_context(_recording_attention(name, module, recorded))
            if int8_attention_names(self._model):
                self.run([feed])
        return recorded

    def calls(self, feed: Arrays, *, seed: int | None = None) -> dict[str, Call]:
        """Runs one feed and returns what went in and out of every module without parts, by name.

        Args:
            feed: Inputs by name.
            seed: Seed of the noise; none if None.
        """
        calls: dict[str, Call] = {}

        def recorder(name: str) -> Any:
            def keep(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
                if arguments and isinstance(arguments[0], torch.Tensor) and isinstance(output, torch.Tensor):
                    calls[name] = Call(arguments[0].numpy().copy(), output.numpy().copy())

            return keep

        with contextlib.ExitStack() as stack:
            for name, module in self._model.named_modules(remove_duplicate=False):
                if not any(module.children()):
                    stack.callback(module.register_forward_hook(recorder(name)).remove)
            if seed is None:
                self.run([feed])
            else:
                self.run_with_noise([feed], seed=seed)
        return calls

    def quantized_values(self, feeds: Sequence[Arrays]) -> int:
        """Counts the values that are rounded to int8 in one run of all feeds."""
        tokens = sum(feed["input_ids"].size for feed in feeds)
        return tokens * quantized_values_of_a_token(self._model)


def quantized_values_of_a_token(model: nn.Module) -> int:
    """Counts the values that a model rounds to int8 for each token."""
    low_bit = [module for module in model.modules() if isinstance(module, LowBitLinear)]
    attention = [module for module in model.modules() if isinstance(module, Int8SelfAttention)]
    of_layers = sum(module.in_features for module in low_bit if module.activation != "none")
    # Weights of values besides, of which there is one for each token that is seen.
    of_attention = sum(layer.out_features for module in attention for layer in (module.query, module.key, module.value))
    return of_layers + of_attention


@contextlib.contextmanager
def noise_in(model: nn.Module, seed: int) -> Iterator[None]:
    """While active, every input of a linear layer of a model moves by -1, 0 or +1 ulp."""

    def move(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (with_noise(arguments[0]), *arguments[1:])

    # Low-bit layers add the noise themselves; layers that stayed float round like any other.
    with contextlib.ExitStack() as stack:
        stack.enter_context(ulp_noise(seed))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(move).remove)
            elif isinstance(module, Conv1D):
                stack.enter_context(_moved_weight(module))
        yield


@contextlib.contextmanager
def _moved_weight(module: Any) -> Iterator[None]:
    """Moves the weights instead of the input: the reference reads them without calling the module."""
    weight = module.weight.data
    module.weight.data = with_noise(weight)
    try:
        yield
    finally:
        module.weight.data = weight


def _encoder(checkpoint: Checkpoint) -> Backend:
    return TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter))


@contextlib.contextmanager
def _recording(name: str, module: PackedModule, recorded: dict[str, RecordedLayer]) -> Iterator[None]:
    constants = [module.weight_packed, module.scale]
    activation = "none"
    if isinstance(module, LowBitLinear):
        activation = module.activation
        constants.append(torch.zeros(1) if module.bias is None else module.bias)
        constants += [] if module.activation_scale is None else [module.activation_scale]

    def keep(_: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, LowBitEmbedding) and module.embed_scale != 1:
            output = module.looked_up(arguments[0])
        recorded[name] = RecordedLayer(
            name,
            module.op_type,
            NodeFormat(module.spec, activation),
            tuple(constant.numpy() for constant in constants),
            arguments[0].detach().numpy().copy(),
            output.detach().numpy().copy(),
        )

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _recording_attention(name: str, module: Int8Attention, recorded: dict[str, RecordedAttention]) -> Iterator[None]:
    def keep(_: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        inputs = tuple(argument.detach().numpy().copy() for argument in arguments)
        recorded[name] = RecordedAttention(name, module.heads, inputs, output.detach().numpy().copy())

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
