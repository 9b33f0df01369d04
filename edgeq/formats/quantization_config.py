"""``quantization_config`` of a compressed model's ``config.json``: written, read back and checked."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from edgeq.errors import FormatError
from edgeq.formats.low_bit import ACTIVATIONS, FORMAT_VERSION, Activation, PackedMatrix

LayerKind = Literal["linear", "embedding"]

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
class TiedLayer:
    """One tied layer as the checkpoint describes it.

    Attributes:
        kind: ``linear`` for an output head, ``embedding`` for a second use as a table.
        table: Module name of the embedding table.
        activation: How an output head's input is quantized: ``dynamic`` or ``none``.
        bias: Whether an output head has a bias, which is its own.
    """

    kind: LayerKind
    table: str
    activation: Activation
    bias: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for ``config.json``."""
        entry = dataclasses.asdict(self)
        return entry if self.bias else {key: value for key, value in entry.items() if key != "bias"}

    @classmethod
    def from_json(cls, name: str, entry: object) -> TiedLayer:
        """Reads an entry of ``config.json``.

        Raises:
            FormatError: If the entry does not describe a tied layer.
        """
        values = entry if isinstance(entry, dict) else {}
        kind, table, activation = (values.get(key) for key in ("kind", "table", "activation"))
        bias = values.get("bias", False)
        # A static scale would be a tensor of the layer's own; tied layers store none but a bias.
        known = isinstance(table, str) and type(bias) is bool and not (bias and kind == "embedding")
        if known and kind in ("linear", "embedding") and activation in ("none", "dynamic"):
            return cls(kind, str(table), activation, bool(bias))
        raise FormatError(f"config.json: the entry of tied layer {name!r} makes no sense")


@dataclasses.dataclass(frozen=True)
class LeftOutTokens:
    """What pruning a vocabulary came to.

    Attributes:
        tokens: Rows that stayed.
        of: Rows that there were.
        matrices: Modules whose matrices have fewer rows: the embedding table, and an output head of its own.
    """

    tokens: int
    of: int
    matrices: tuple[str, ...]


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
    if not 0 < numbers[0] <= numbers[1] < _LARGEST_DIMENSION:
        raise FormatError(f"config.json: 'vocabulary' should keep some of its tokens, found {entry}")
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
