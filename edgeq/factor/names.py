"""The matrices of a model that may be factorised, as quantizers see them: each factor is a layer of its own."""

from __future__ import annotations

import dataclasses

from torch import nn

from edgeq.factor.insert import factor_specs
from edgeq.factor.kinds import FactorModule
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
        module = model.get_submodule(name)
        parts = module.table_parts() if isinstance(module, FactorModule) else ("",)
        embeddings += [f"{name}.{part}".rstrip(".") for part in parts]
    for name, spec in factor_specs(model).items():
        shared = model.get_submodule(name)
        if spec.is_shared and isinstance(shared, FactorModule):
            linears += [f"{name}.{part}" for part in shared.linear_parts()]
            matrices += [f"{name}.{part}" for part in shared.matrix_parts()]
    for name in adapter.linear_names:
        module = model.get_submodule(name)
        if not isinstance(module, FactorModule):
            linears.append(name)
            continue
        linears += [f"{name}.{part}" for part in module.linear_parts()]
        if tables := module.tied_parts():
            tied.pop(name, None)
            tied |= {f"{name}.{part}": table for part, table in tables.items()}
    for name in linears:
        numbers = model.get_submodule(name).get_parameter("weight").numel()
        if numbers < SMALLEST_PACKED:
            kept[name] = f"a factor of {numbers} numbers would be padded to a tile and grow"
    return LayerNames(embeddings, linears, tied, kept, matrices)
