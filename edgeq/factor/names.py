"""The matrices of a model that may be factorised, as quantizers see them: each factor is a layer of its own."""

from __future__ import annotations

import dataclasses

from torch import nn

from edgeq.factor.embedding import KroneckerEmbedding, KroneckerHead
from edgeq.factor.insert import LINEARS, factor_specs
from edgeq.factor.specs import BankSpec
from edgeq.factor.tucker import TuckerBank
from edgeq.models import ModelAdapter

SMALLEST_PACKED = 64
"""A factor of fewer numbers stays float: packed, it would be padded to a tile and grow."""


@dataclasses.dataclass(frozen=True)
class LayerNames:
    """Layers by what they are; the lists of an adapter, with factorised layers replaced by their factors.

    Attributes:
        embeddings: Tables.
        linears: Linear layers.
        tied: Layers on the weights of a table, with that table.
        kept_float: Layers that stay float whatever a recipe says, with the reason.
        matrices: Tables that hold matrices of linear layers, and are stored as those are.
    """

    embeddings: list[str]
    linears: list[str]
    tied: dict[str, str]
    kept_float: dict[str, str]
    matrices: list[str]


def layer_names(model: nn.Module, adapter: ModelAdapter) -> LayerNames:
    """Lists the layers of a float model, dense or factorised.

    Args:
        model: The model.
        adapter: Its adapter, which knows the dense layers.
    """
    embeddings: list[str] = []
    linears: list[str] = []
    matrices: list[str] = []
    tied = dict(adapter.tied_names)
    kept = dict(adapter.float_names)
    for name in adapter.embedding_names:
        factorised = isinstance(model.get_submodule(name), KroneckerEmbedding)
        embeddings.append(f"{name}.table" if factorised else name)
    for name, spec in factor_specs(model).items():
        bank = model.get_submodule(name)
        if isinstance(spec, BankSpec) and isinstance(bank, TuckerBank):
            linears += _factors(name, bank)
            if bank.cores is not None:
                matrices.append(f"{name}.cores")
    for name in adapter.linear_names:
        module = model.get_submodule(name)
        if isinstance(module, KroneckerHead):
            tied.pop(name, None)
            tied[f"{name}.rows"] = f"{module.spec.table}.table"
            linears.append(f"{name}.rows")
        elif isinstance(module, LINEARS):
            linears += _factors(name, module)
        else:
            linears.append(name)
    for name in linears:
        numbers = model.get_submodule(name).get_parameter("weight").numel()
        if numbers < SMALLEST_PACKED:
            kept[name] = f"a factor of {numbers} numbers would be padded to a tile and grow"
    return LayerNames(embeddings, linears, tied, kept, matrices)


def _factors(name: str, module: nn.Module) -> list[str]:
    """Linear layers inside a factorised one."""
    return [f"{name}.{inner}" for inner, part in module.named_modules() if isinstance(part, nn.Linear)]
