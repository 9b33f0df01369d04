"""A model and the description of its packed tensors in ``config.json``: one made from the other."""

from __future__ import annotations

import torch
from torch import nn

from edgeq.errors import FormatError
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.quantization_config import LayerKind, PackedTensor, QuantizationManifest, TiedLayer
from edgeq.models.transformers_release import other_names
from edgeq.quant.buffers import set_buffer
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows
from edgeq.quant.int8_attention import int8_attention_names, use_int8_attention
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear, PackedModule
from edgeq.quant.output_bias import keep_biases_in_layers
from edgeq.quant.placing import put_layer
from edgeq.quant.plan import CompressionResult
from edgeq.quant.tied import TiedModule, build_tied, describe_tied


def manifest_of(model: nn.Module, result: CompressionResult) -> QuantizationManifest:
    """Describes the packed modules of a model that was compressed with ``result``."""
    tensors, tied = {}, {}
    names = {id(module): name for name, module in model.named_modules()}
    for name, module in model.named_modules():
        if isinstance(module, TiedModule):
            tied[name] = describe_tied(module, table=names[id(module.table)])
        elif isinstance(module, LowBitLinear):
            tensors[name] = PackedTensor(
                "linear", module.spec, module.activation, module.bias is not None
            )
        elif isinstance(module, LowBitEmbedding):
            tensors[name] = PackedTensor("embedding", module.spec, "none", bias=False)
    return QuantizationManifest(
        recipe=result.recipe,
        recipe_sha256=result.recipe_sha256,
        tensors=tensors,
        kept_float=dict(result.kept_float),
        tied=tied,
        zero_buffers=result.zero_buffers,
        vocabulary=result.vocabulary,
        int8_attention=int8_attention_names(model),
    )


def _packed_module(tensor: PackedTensor) -> PackedModule:
    """Makes the module, its buffers still zero (or on the ``meta`` device inside that context)."""
    if tensor.kind == "embedding":
        return LowBitEmbedding(tensor.spec)
    return LowBitLinear(tensor.spec, activation=tensor.activation, bias=tensor.bias)


def insert_packed_modules(model: nn.Module, manifest: QuantizationManifest) -> None:
    """Replaces float layers by empty packed modules of the sizes that the manifest gives.

    Raises:
        FormatError: If a layer is not there, or has another shape or kind.
    """
    for buffer in _present_zero_buffers(model, manifest):
        set_buffer(model, buffer, model.get_buffer(buffer))
    # All float layers are looked at first: one on the weights of a table has none once the table is packed.
    found: dict[str, torch.device] = {}
    for stored_name, tensor in manifest.tensors.items():
        name = name_in(model, stored_name)
        if name is None:
            raise FormatError(
                f"config.json: {type(model).__name__} has no layer {stored_name!r} to be packed"
            )
        found[name] = _checked_device(model, name, tensor.kind, tensor.spec)
    tied: list[tuple[str, str, TiedLayer]] = []
    for stored_name, layer in manifest.tied.items():
        name, table_name = name_in(model, stored_name), name_in(model, layer.table)
        if name is None and is_body(model):
            continue
        if name is None or table_name is None:
            raise FormatError(f"config.json: {type(model).__name__} has no layer {stored_name!r} to be tied")
        found[name] = _checked_device(model, name, layer.kind, manifest.tensors[layer.table].spec)
        tied.append((name, table_name, layer))
    for (name, device), tensor in zip(found.items(), manifest.tensors.values(), strict=False):
        with device:
            put_layer(model, name, _packed_module(tensor))
    for name, table_name, layer in tied:
        table = model.get_submodule(table_name)
        if not isinstance(table, LowBitEmbedding):
            raise FormatError(f"config.json: layer {layer.table!r} should be a packed embedding")
        with found[name]:
            put_layer(model, name, build_tied(layer, table))
    use_int8_attention(model, _places_of(model, manifest.int8_attention))
    keep_biases_in_layers(model)


def _places_of(model: nn.Module, modules: tuple[str, ...]) -> list[str]:
    places = []
    for stored_name in modules:
        name = name_in(model, stored_name)
        if name is None:
            raise FormatError(f"config.json: {type(model).__name__} has no attention {stored_name!r} to be int8")
        places.append(name)
    return places


def fill_zero_buffers(model: nn.Module, manifest: QuantizationManifest) -> None:
    """Gives the buffers that the manifest names instead of storing them their values."""
    for name in _present_zero_buffers(model, manifest):
        shape = model.get_buffer(name).shape
        set_buffer(model, name, torch.zeros(shape))


def _present_zero_buffers(model: nn.Module, manifest: QuantizationManifest) -> list[str]:
    present = dict(model.named_buffers())
    missing = [name for name in manifest.zero_buffers if name not in present]
    if missing and not is_body(model):
        raise FormatError(f"config.json: {type(model).__name__} has no buffer {missing[0]!r}")
    return [name for name in manifest.zero_buffers if name in present]


def is_body(model: nn.Module) -> bool:
    """Tells a model without its output head, which lacks what belongs to the head."""
    return getattr(model, "base_model", None) is model


def _checked_device(model: nn.Module, name: str, kind: LayerKind, spec: PackedMatrix) -> torch.device:
    """Returns where a float layer is that is to be replaced by a packed one of the given sizes."""
    module = model.get_submodule(name)
    shape = (spec.rows, spec.columns)
    if not isinstance(module, FLOAT_CLASSES[kind]) or tuple(weight_rows(module).shape) != shape:
        raise FormatError(
            f"config.json: layer {name!r} should be a packed {kind} of {shape[0]} x {shape[1]}, "
            f"but the model has {module}"
        )
    return module.get_parameter("weight").device


def name_in(model: nn.Module, name: str) -> str | None:
    """Finds a stored layer in a model that may be the bare encoder of it, or the encoder with a head."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    present = dict(model.named_modules(remove_duplicate=False))
    candidates = (name, name.removeprefix(prefix), prefix + name, *other_names(name))
    return next((candidate for candidate in candidates if candidate in present), None)
