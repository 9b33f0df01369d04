"""The part of ``config.json`` that describes packed tensors: written, read back and checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from edgeq.errors import FormatError
from edgeq.formats.low_bit import ACTIVATIONS, FORMAT_VERSION, Activation, PackedMatrix
from edgeq.models.transformers_release import other_names
from edgeq.quant.buffers import set_buffer
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows
from edgeq.quant.int8_attention import int8_attention_names, use_int8_attention
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear, PackedModule
from edgeq.quant.output_bias import keep_biases_in_layers
from edgeq.quant.placing import put_layer
from edgeq.quant.plan import CompressionResult, LayerKind, LeftOutTokens
from edgeq.quant.tied import TiedLayer, TiedModule

QUANT_METHOD = "edgeq"
_LARGEST_DIMENSION = 1 << 31
_KEYS = frozenset(
    {"quant_method", "format_version", "recipe", "tensors", "kept_float", "files"}
    | {"tied", "zero_buffers", "factors", "vocabulary", "int8_attention"}
)
"""Keys of ``quantization_config``: another may change the result."""


@dataclasses.dataclass(frozen=True)
class PackedTensor:
    """One packed layer as the checkpoint describes it.

    Attributes:
        kind: ``linear`` or ``embedding``.
        spec: Rows, columns, bits, zero point, scales.
        activation: How a linear layer's input is quantized; ``none`` for embeddings.
        bias: Whether the layer has a bias.
    """

    kind: LayerKind
    spec: PackedMatrix
    activation: Activation
    bias: bool

    def build(self) -> PackedModule:
        """Makes the module, its buffers still zero (or on the ``meta`` device inside that context)."""
        if self.kind == "embedding":
            return LowBitEmbedding(self.spec)
        return LowBitLinear(self.spec, activation=self.activation, bias=self.bias)

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for ``config.json``."""
        entry: dict[str, Any] = {"kind": self.kind, **dataclasses.asdict(self.spec)}
        if self.kind == "linear":
            entry |= {"activation": self.activation, "bias": self.bias}
        return entry

    @classmethod
    def from_json(cls, name: str, entry: object) -> PackedTensor:
        """Reads an entry of ``config.json``.

        Raises:
            FormatError: If the entry does not describe a packed tensor.
        """
        try:
            return cls._from_json(entry)
        except (KeyError, TypeError, ValueError, FormatError) as error:
            reason = str(error) if isinstance(error, FormatError) else "a key is missing or of the wrong type"
            raise FormatError(
                f"config.json: the entry of packed tensor {name!r} makes no sense: {reason}"
            ) from None

    @classmethod
    def _from_json(cls, entry: object) -> PackedTensor:
        if not isinstance(entry, dict):
            raise TypeError
        numbers = [entry[key] for key in ("rows", "columns", "bits", "scales")]
        if any(type(n) is not int or n >= _LARGEST_DIMENSION for n in numbers):
            raise TypeError
        rows, columns, bits, scales = numbers
        if type(entry["zero_point"]) not in (int, float):
            raise TypeError
        spec = PackedMatrix(rows, columns, bits, float(entry["zero_point"]), scales)
        if entry["kind"] == "embedding":
            return cls("embedding", spec, "none", bias=False)
        if (
            entry["kind"] != "linear"
            or entry["activation"] not in ACTIVATIONS
            or type(entry["bias"]) is not bool
        ):
            raise TypeError
        return cls("linear", spec, entry["activation"], entry["bias"])


@dataclasses.dataclass(frozen=True)
class QuantizationManifest:
    """What a compressed checkpoint says about itself.

    Attributes:
        recipe: Name of the recipe.
        recipe_sha256: Digest of the recipe.
        tensors: Packed layers by module name.
        tied: Layers on the packed weights of an embedding table; they store nothing.
        kept_float: Layers that stay float, with the reason.
        files: SHA-256 of the weight files; empty when nobody computed it.
        zero_buffers: Buffers that hold zeros and are not stored.
        factors: Description of factorised layers, which ``edgeq.factor`` writes and reads.
        vocabulary: Tokens that were left out; None if all stayed.
        int8_attention: Modules of self-attention that is int8.
    """

    recipe: str
    recipe_sha256: str
    tensors: dict[str, PackedTensor]
    kept_float: dict[str, str]
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    tied: dict[str, TiedLayer] = dataclasses.field(default_factory=dict)
    zero_buffers: tuple[str, ...] = ()
    factors: dict[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: LeftOutTokens | None = None
    int8_attention: tuple[str, ...] = ()

    @classmethod
    def of_model(cls, model: nn.Module, result: CompressionResult) -> QuantizationManifest:
        """Describes the packed modules of a model that was compressed with ``result``."""
        tensors, tied = {}, {}
        names = {id(module): name for name, module in model.named_modules()}
        for name, module in model.named_modules():
            if isinstance(module, TiedModule):
                tied[name] = TiedLayer.of_module(module, table=names[id(module.table)])
            elif isinstance(module, LowBitLinear):
                tensors[name] = PackedTensor(
                    "linear", module.spec, module.activation, module.bias is not None
                )
            elif isinstance(module, LowBitEmbedding):
                tensors[name] = PackedTensor("embedding", module.spec, "none", bias=False)
        return cls(
            recipe=result.recipe,
            recipe_sha256=result.recipe_sha256,
            tensors=tensors,
            kept_float=dict(result.kept_float),
            tied=tied,
            zero_buffers=result.zero_buffers,
            vocabulary=result.vocabulary,
            int8_attention=int8_attention_names(model),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the value of ``quantization_config``."""
        # Most models have none of these; their files stay as they are.
        special = {
            "tied": {name: layer.to_json() for name, layer in self.tied.items()},
            "zero_buffers": list(self.zero_buffers),
            "factors": self.factors,
            "vocabulary": None if self.vocabulary is None else dataclasses.asdict(self.vocabulary),
            "int8_attention": list(self.int8_attention),
        }
        return {
            "quant_method": QUANT_METHOD,
            "format_version": FORMAT_VERSION,
            "recipe": {"name": self.recipe, "sha256": self.recipe_sha256},
            "tensors": {name: tensor.to_json() for name, tensor in self.tensors.items()},
            "kept_float": self.kept_float,
            "files": self.files,
        } | {key: value for key, value in special.items() if value}

    @classmethod
    def from_json(cls, value: object) -> QuantizationManifest:
        """Reads the value of ``quantization_config``.

        Raises:
            FormatError: If it is of another version, or damaged.
        """
        if not isinstance(value, dict) or value.get("quant_method") != QUANT_METHOD:
            raise FormatError(f"config.json: quantization_config should have quant_method {QUANT_METHOD!r}")
        if value.get("format_version") != FORMAT_VERSION:
            raise FormatError(
                f"config.json: the compressed checkpoint should have format version {FORMAT_VERSION}, "
                f"found {value.get('format_version')!r}; use the edgeq that wrote it"
            )
        if unknown := sorted(value.keys() - _KEYS):
            raise FormatError(
                f"config.json: quantization_config has a key {unknown[0]!r}, which this edgeq does not know; "
                "use the edgeq that wrote it"
            )
        recipe, tensors = value.get("recipe"), value.get("tensors")
        if not isinstance(recipe, dict) or not isinstance(tensors, dict):
            raise FormatError("config.json: quantization_config lacks 'recipe' or 'tensors'")
        kept, files = value.get("kept_float", {}), value.get("files", {})
        factors = value.get("factors", {})
        if not isinstance(factors, dict):
            raise FormatError("config.json: 'factors' should be an object")
        for entries in (recipe, kept, files):
            if not isinstance(entries, dict) or any(not isinstance(text, str) for text in entries.values()):
                raise FormatError("config.json: 'recipe', 'kept_float' and 'files' must map names to texts")
        parsed = {name: PackedTensor.from_json(name, entry) for name, entry in tensors.items()}
        return cls(
            recipe=recipe.get("name", ""),
            recipe_sha256=recipe.get("sha256", ""),
            tensors=parsed,
            kept_float=kept,
            files=files,
            tied=_tied_layers(value.get("tied", {}), parsed),
            zero_buffers=_names(value, "zero_buffers"),
            factors=factors,
            vocabulary=_left_out(value.get("vocabulary")),
            int8_attention=_names(value, "int8_attention"),
        )


def _left_out(entry: object) -> LeftOutTokens | None:
    if entry is None:
        return None
    numbers: list[Any] = [entry.get(key) for key in ("tokens", "of")] if isinstance(entry, dict) else []
    matrices = entry.get("matrices") if isinstance(entry, dict) else None
    if not isinstance(matrices, list | tuple) or any(type(n) is not int for n in numbers) or not numbers:
        raise FormatError("config.json: 'vocabulary' should hold 'tokens', 'of' and 'matrices'")
    return LeftOutTokens(numbers[0], numbers[1], tuple(str(name) for name in matrices))


def _names(value: dict[str, Any], key: str) -> tuple[str, ...]:
    names = value.get(key, [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise FormatError(f"config.json: {key!r} must list names")
    return tuple(names)


def _tied_layers(entries: object, tensors: dict[str, PackedTensor]) -> dict[str, TiedLayer]:
    if not isinstance(entries, dict):
        raise FormatError("config.json: 'tied' must map layers to descriptions")
    tied = {name: TiedLayer.from_json(name, entry) for name, entry in entries.items()}
    for name, layer in tied.items():
        table = tensors.get(layer.table)
        if table is None or table.kind != "embedding" or name in tensors:
            raise FormatError(
                f"config.json: layer {name!r} should be tied to a packed embedding, found {layer.table!r}"
            )
    return tied


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
            put_layer(model, name, tensor.build())
    for name, table_name, layer in tied:
        table = model.get_submodule(table_name)
        if not isinstance(table, LowBitEmbedding):
            raise FormatError(f"config.json: layer {layer.table!r} should be a packed embedding")
        with found[name]:
            put_layer(model, name, layer.build(table))
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
