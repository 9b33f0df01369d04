"""A model with some of its modules replaced, on the same weights and layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

Replace = Callable[[nn.Module], nn.Module | None]
"""Returns what stands for a module, or None to leave it."""


def with_modules_replaced(model: nn.Module, replace: Replace) -> nn.Module:
    """Returns a model of another structure; ``model`` itself stays as it is, for training and for saving.

    Args:
        model: A float or compressed model.
        replace: Asked for every module below the model.

    Returns:
        The model, if nothing is replaced; or else a copy that shares all layers without parts and all tensors.
    """
    if not any(replace(module) is not None for module in model.modules() if module is not model):
        return model
    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    kept = [module for module in leaves if replace(module) is None]
    shared = {id(item): item for item in (*kept, *model.parameters(), *model.buffers())}
    changed: nn.Module = copy.deepcopy(model, shared)
    for name, other in [(name, replace(module)) for name, module in changed.named_modules()]:
        if name and other is not None:
            changed.set_submodule(name, other)
    return changed
