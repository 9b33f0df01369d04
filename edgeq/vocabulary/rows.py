"""The rows of tokens in a model: embedding table, output head, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.token_ids import renumbered_settings

_BIAS_OF_LOGITS = "final_logits_bias"


def token_table(model: Any) -> nn.Embedding:
    """Returns the embedding table of a model's tokens.

    Raises:
        UnsupportedError: If the model has none.
    """
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise UnsupportedError(f"{type(model).__name__} has no embedding table of tokens, whose rows could be left out")
    return table


def counts_positions_from_padding(model: Any) -> bool:
    """Whether positions begin behind the number of the padding token, as in RoBERTa and its kin."""
    table = token_table(model)
    others = [one for one in model.modules() if isinstance(one, nn.Embedding) and one.weight is not table.weight]
    return any(one.padding_idx is not None for one in others)


def keep_rows(model: Any, kept: Sequence[int], *, new_ids: Mapping[int, int]) -> tuple[str, ...]:
    """Leaves the other rows out of a float model, in place, and renumbers the tokens that its configuration names.

    Args:
        model: A ``transformers`` model.
        kept: Rows that stay, in order.
        new_ids: The number of each token that stays, by the one that it had.

    Returns:
        Names of the matrices that have fewer rows; modules that share one are named once.
    """
    rows, table, head = torch.tensor(list(kept)), token_table(model), model.get_output_embeddings()
    count = table.num_embeddings
    tensors = [table.weight]
    if head is not None:
        tensors += [tensor for tensor in (head.weight, getattr(head, "bias", None)) if tensor is not None]
    smaller = {id(tensor): nn.Parameter(tensor.detach()[rows].clone()) for tensor in tensors}
    head_name = next((name for name, module in model.named_modules() if module is head), "")
    names: dict[int, str] = {}
    for name, module in list(model.named_modules()):
        for key, tensor in list(module._parameters.items()):
            if tensor is None:
                continue
            if id(tensor) not in smaller and _is_bias_of(name, key, tensor, head_name, count):
                smaller[id(tensor)] = nn.Parameter(tensor.detach()[rows].clone())
            if id(tensor) in smaller:
                setattr(module, key, smaller[id(tensor)])
                if key == "weight":
                    names.setdefault(id(tensor), name)
                    _resize(module, len(rows), new_ids)
    if _BIAS_OF_LOGITS in model._buffers:
        model.register_buffer(_BIAS_OF_LOGITS, model.get_buffer(_BIAS_OF_LOGITS)[:, rows].clone())
    _renumber_config(model.config, len(rows), new_ids)
    return tuple(names.values())


def _is_bias_of(name: str, key: str, tensor: torch.Tensor, head: str, count: int) -> bool:
    """Whether a vector is a bias of the output head that a module around the head holds."""
    return bool(head) and key == "bias" and tensor.shape == (count,) and f"{head}.".startswith(f"{name}.")


def _resize(module: nn.Module, count: int, new_ids: Mapping[int, int]) -> None:
    if isinstance(module, nn.Embedding):
        module.num_embeddings = count
        if module.padding_idx is not None:
            module.padding_idx = new_ids[module.padding_idx]
    elif isinstance(module, nn.Linear):
        module.out_features = count


def _renumber_config(config: Any, count: int, new_ids: Mapping[int, int]) -> None:
    config.vocab_size = count
    for key, value in renumbered_settings(config.to_dict(), new_ids).items():
        # Values that are no token ids stay the objects that they are.
        if key != "vocab_size" and value != getattr(config, key, value):
            setattr(config, key, value)
