"""Activations by the name that a configuration gives them, in the form that every backend has an operator for.

``transformers`` has several spellings of one function, such as five of GELU with tanh, which differ in their rounding
only. All but one would be exported as a dozen nodes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import UnsupportedError

Activation = Callable[[torch.Tensor], torch.Tensor]

_gelu_tanh: Activation = functools.partial(functional.gelu, approximate="tanh")


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x * 1.702)


def _squared_relu(x: torch.Tensor) -> torch.Tensor:
    positive = torch.relu(x)
    return positive * positive


ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_python": functional.gelu,
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), _gelu_tanh),
    "quick_gelu": _quick_gelu,
    "relu": functional.relu,
    "relu2": _squared_relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
"""Functions by their names in ``transformers.activations``."""


_SPELLED_OUT = {
    "AccurateGELUActivation": "gelu_accurate",
    "FastGELUActivation": "gelu_fast",
    "GELUTanh": "gelu_pytorch_tanh",
    "NewGELUActivation": "gelu_new",
    "QuickGELUActivation": "quick_gelu",
    "ReLUSquaredActivation": "relu2",
}
"""Modules of ``transformers`` that would be exported as many nodes, with the name of their function."""


class NamedActivation(nn.Module):
    """An activation as a module, to stand where ``transformers`` has its own.

    Args:
        name: A key of :data:`ACTIVATIONS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the function of each number of ``x``, of any shape."""
        return ACTIVATIONS[self.name](x)


def exportable_activation(module: nn.Module) -> NamedActivation | None:
    """Returns what stands for an activation of transformers that would be exported as many nodes; None for others."""
    name = type(module).__name__
    if name == "GELUActivation" and module.act is not functional.gelu:
        return NamedActivation("gelu_python")
    return NamedActivation(_SPELLED_OUT[name]) if name in _SPELLED_OUT else None


def check_activation(config: Any, field: str, *, family: str) -> None:
    """Refuses a configuration whose activation is not implemented.

    Args:
        config: A ``transformers`` configuration.
        field: Its attribute that names the activation.
        family: Name of the model family, for the message.

    Raises:
        UnsupportedError: If the name is not a key of :data:`ACTIVATIONS`.
    """
    name = getattr(config, field)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedError(
            f"{family} with activation {name!r} ({field} in config.json) is not supported; "
            f"edgeq supports {', '.join(ACTIVATIONS)}"
        )
