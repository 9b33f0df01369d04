"""Reads what a checkpoint, an ONNX model or a bundle stores: names, shapes and bytes, never the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import OP_DOMAIN, PackedMatrix, packed_matrix_of
from edgeq.formats.quantization_config import QUANT_METHOD, LeftOutTokens, QuantizationManifest
from edgeq.formats.tensor_header import read_tensor_header

_CACHE_BYTES = {"float32": 4, "float16": 2, "int8": 1}
_BLOCK_TOKENS = 16

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}
"""Names of safetensors' element types as numpy has them, where a model's tensors use them."""
_ENCODER_DECODER_GRAPHS = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
"""Graphs that are one model, as optimum names them; they share a file of weights."""

_STOCK_OPERATORS = ("MatMulNBits", "GatherBlockQuantized")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a model.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Type of its entries as numpy names it.
        item_bytes: Bytes of one entry.
        bytes: Bytes of all entries.
        copies: How many times they are stored: each graph of a model holds its small tensors itself.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    item_bytes: int
    bytes: int
    copies: int = 1


@dataclasses.dataclass(frozen=True)
class StoredMatrix:
    """One low-bit matrix: its kind, its description, and the names of the tensors that hold it."""

    kind: str
    spec: PackedMatrix
    codes: str
    scale: str


@dataclasses.dataclass(frozen=True)
class KeptCache:
    """The keys and values that a bundle keeps of every token.

    Attributes:
        dtype: Their type.
        token_bytes: Bytes of one token in all layers, scales included; for an encoder-decoder of a generated token.
        source_token_bytes: Bytes of one token of an encoder input; 0 for other models.
    """

    dtype: str
    token_bytes: int
    source_token_bytes: int


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """Everything that :mod:`edgeq.ledger` needs to know about a model on disk.

    Attributes:
        path: What was read, for messages.
        form: ``"checkpoint"``, ``"onnx"`` or ``"bundle"``.
        tensors: By name, in stored order.
        matrices: Low-bit matrices by module name.
        kept_float: Module name to the reason why it was not compressed.
        tensor_files: Files that hold the tensors.
        factorised: Weights, without biases, of the dense layer that each factorised module stands for; 0 for what
            several of them share.
        vocabulary: What was left out of its vocabulary; None if nothing was.
        int8_attention: How many self-attentions are int8.
        cache: What a bundle keeps of every token; None for other forms, and for models that generate no text.
    """

    path: Path
    form: str
    tensors: dict[str, StoredTensor]
    matrices: dict[str, StoredMatrix]
    kept_float: dict[str, str]
    tensor_files: tuple[Path, ...]
    factorised: Mapping[str, int] = dataclasses.field(default_factory=dict)
    vocabulary: LeftOutTokens | None = None
    int8_attention: int = 0
    cache: KeptCache | None = None

    def is_factor(self, tensor: str) -> bool:
        """Tells whether a tensor belongs to a factorised module, by its name."""
        return any(tensor.startswith((f"{module}.", f"{module}/")) for module in self.factorised)


def read_stored_model(path: Path) -> StoredModel:
    """Finds out what ``path`` is and reads its tensors' names and sizes.

    Raises:
        UsageError: If there is no model at ``path``.
        FormatError: If a file is damaged.
    """
    if path.is_file():
        if path.suffix == ".onnx":
            return _read_onnx([path])
        raise UsageError(f"{path} is not a model; give a checkpoint folder, a bundle folder, or a .onnx file")
    if (path / "manifest.json").is_file():
        return _read_bundle(path)
    if graphs := onnx_graphs(path):
        return _read_onnx(graphs)
    if (path / "model.safetensors").is_file() or (path / "model.safetensors.index.json").is_file():
        return _read_checkpoint(path)
    if (path / "deploy.json").is_file():
        raise UsageError(f"{path} is a whole run; give one of its parts: checkpoint, onnx or bundles/NAME")
    raise UsageError(
        f"{path} holds no model.safetensors, ONNX graph of 'edgeq export' or manifest.json; "
        "give a checkpoint, an ONNX model or a bundle"
    )


def onnx_graphs(folder: Path) -> list[Path]:
    """Returns the graphs of the model that ``edgeq export`` wrote into a folder; none if it is another folder."""
    for names in (("model.onnx",), _ENCODER_DECODER_GRAPHS):
        if (folder / names[0]).is_file():
            return [folder / name for name in names]
    return []


def _read_checkpoint(folder: Path) -> StoredModel:
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        index = read_json_object(folder / "model.safetensors.index.json")
        files = sorted({folder / str(name) for name in dict(index.get("weight_map", {})).values()})
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        if not file.is_file():
            raise FormatError(f"{file} is missing although the index names it; get the checkpoint again")
        for name, entry in read_tensor_header(file).items():
            dtype = _DTYPES.get(entry.dtype, entry.dtype.lower())
            items = math.prod(entry.shape)
            tensors[name] = StoredTensor(name, entry.shape, dtype, entry.bytes // max(1, items), entry.bytes)
    manifest = _manifest(folder)
    matrices = _matrices(manifest, tensors, folder, complete=True)
    return StoredModel(
        folder, "checkpoint", tensors, matrices, tensor_files=tuple(files), **_described(manifest, folder)
    )


def _read_bundle(folder: Path) -> StoredModel:
    manifest = read_json_object(folder / "manifest.json")
    try:
        listed = [
            StoredTensor(
                str(entry["name"]),
                tuple(int(extent) for extent in entry["shape"]),
                str(entry["dtype"]),
                int(entry["bytes"]) // max(1, math.prod(entry["shape"])),
                int(entry["bytes"]),
            )
            for entry in manifest["weights"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{folder / 'manifest.json'} does not list the weights as expected ({error!r})"
        ) from error
    weights = folder / "weights.bin"
    claimed = sum(tensor.bytes for tensor in listed)
    found = weights.stat().st_size if weights.is_file() else 0
    if found < claimed:
        raise FormatError(
            f"{weights} should hold {claimed} bytes of weights, found {found}; get the bundle again"
        )
    tensors = {tensor.name: tensor for tensor in listed}
    described = _manifest(folder)
    matrices = _matrices(described, tensors, folder, complete=False)
    cache = _kept_cache(manifest, folder / "manifest.json")
    return StoredModel(
        folder, "bundle", tensors, matrices, tensor_files=(weights,), cache=cache, **_described(described, folder)
    )


def _kept_cache(manifest: dict[str, Any], path: Path) -> KeptCache | None:
    """Adds up the state of a bundle, whose third size is tokens or blocks of 16; a model without a state has none."""
    taken = {True: 0, False: 0}
    try:
        state = manifest.get("functions", {}).get("main", {}).get("state", [])
        for spec in state:
            sizes, slots = [size for size in spec["shape"] if type(size) is int], spec["shape"][2]
            tokens = _BLOCK_TOKENS if slots.endswith("_blocks") else 1
            taken[slots.startswith("source_")] += math.prod(sizes) * _CACHE_BYTES[spec["dtype"]] // tokens
        return KeptCache(str(state[0]["dtype"]), taken[False], taken[True]) if state else None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} does not describe its caches as expected ({error!r}); compile it again") from error


def _manifest(folder: Path) -> QuantizationManifest:
    """Reads what ``config.json`` says of packed tensors; nothing for a float model, or one of other makers."""
    config_file = folder / "config.json"
    config = read_json_object(config_file) if config_file.is_file() else {}
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != QUANT_METHOD:
        return QuantizationManifest("", "", {}, {})
    try:
        return QuantizationManifest.from_json(quantization)
    except FormatError as error:
        raise FormatError(f"{folder}: {error}") from error


def _matrices(
    manifest: QuantizationManifest, tensors: Mapping[str, StoredTensor], folder: Path, *, complete: bool
) -> dict[str, StoredMatrix]:
    """Finds the tensors of each matrix that the manifest describes; all must be there in a ``complete`` model."""
    matrices = {}
    for module, packed in manifest.tensors.items():
        codes, scale = (_find(f"{module}.{part}", tensors) for part in ("weight_packed", "scale"))
        if codes is not None and scale is not None:
            matrices[module] = StoredMatrix(packed.kind, packed.spec, codes, scale)
        elif complete:
            raise FormatError(f"{folder}: config.json describes {module}, but its codes are not stored")
    return matrices


def _factorised(manifest: QuantizationManifest, folder: Path) -> dict[str, int]:
    """Returns which modules are factorised, and how many weights each stands for."""
    try:
        return {str(name): int(entry["dense"]) for name, entry in manifest.factors.get("layers", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder / 'config.json'}: 'factors' are not as edgeq writes them ({error!r})") from error


def _described(manifest: QuantizationManifest, folder: Path) -> dict[str, Any]:
    """Fields of :class:`StoredModel` that the manifest says."""
    return {
        "kept_float": manifest.kept_float,
        "factorised": _factorised(manifest, folder),
        "vocabulary": manifest.vocabulary,
        "int8_attention": len(manifest.int8_attention),
    }


def _find(wanted: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    if wanted in tensors:
        return wanted
    matches = [name for name in tensors if name.endswith(f".{wanted}")]
    return matches[0] if len(matches) == 1 else None


def _read_onnx(graphs: Sequence[Path]) -> StoredModel:
    """Reads the graphs of one model; what several of them read in one place is stored once."""
    tensors: dict[str, StoredTensor] = {}
    contents: dict[str, _Place | bytes] = {}
    matrices: dict[str, StoredMatrix] = {}
    for file in graphs:
        model = _load_graph(file)
        for proto in model.graph.initializer:
            tensor, content = _onnx_tensor(proto, file)
            name = proto.name
            if name in tensors and content == contents[name] and tensor.shape == tensors[name].shape:
                if isinstance(content, bytes):
                    tensors[name] = dataclasses.replace(tensors[name], copies=tensors[name].copies + 1)
                continue
            if name in tensors:  # exporters number what they make: one name, another tensor
                name = f"{name} ({file.stem})"
            tensors[name], contents[name] = dataclasses.replace(tensor, name=name), content
        _add_onnx_matrices(matrices, model, tensors, file)
    files = {*graphs, *(content.file for content in contents.values() if isinstance(content, _Place))}
    path = graphs[0] if len(graphs) == 1 else graphs[0].parent
    folder = graphs[0].parent
    described = _described(_manifest(folder), folder)
    return StoredModel(path, "onnx", tensors, matrices, tensor_files=tuple(sorted(files)), **described)


def _load_graph(file: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not file.is_file():
        raise FormatError(f"{file} is missing although the other graphs of the model are there; export it again")
    try:
        return onnx.load(str(file), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise FormatError(f"{file} is not an ONNX model ({error}); the file is damaged") from error


def _add_onnx_matrices(
    matrices: dict[str, StoredMatrix], model: Any, tensors: Mapping[str, StoredTensor], file: Path
) -> None:
    """Describes the low-bit matrices of one graph that are not described yet."""
    import onnx

    for node in model.graph.node:
        if node.op_type in _STOCK_OPERATORS:
            raise UnsupportedError(
                f"{file} is of the stock flavour, whose packed weights are not told apart; "
                "ask for the size of the checkpoint that it was exported from"
            )
        if node.domain != OP_DOMAIN or node.op_type not in ("LowBitLinear", "LowBitEmbedding"):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        codes, scale = node.input[1], node.input[2]
        if codes not in tensors or scale not in tensors:
            raise FormatError(f"{file}: the codes and scales of node {node.name} are not stored tensors")
        try:
            spec = packed_matrix_of(attributes, scales=math.prod(tensors[scale].shape))
        except FormatError as error:
            raise FormatError(f"{file}: node {node.name}: {error}") from error
        kind = "linear" if node.op_type == "LowBitLinear" else "embedding"
        matrices.setdefault(codes.removesuffix(".weight_packed"), StoredMatrix(kind, spec, codes, scale))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the data of an ONNX tensor lies outside its graph."""

    file: Path
    offset: int


def _onnx_tensor(proto: Any, file: Path) -> tuple[StoredTensor, _Place | bytes]:
    """Size of one initializer, and its place in an external file, whose length is checked, or what it holds."""
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
    shape = tuple(proto.dims)
    size = dtype.itemsize * math.prod(shape)
    content: _Place | bytes
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in proto.external_data}
        content = place = _Place(file.parent / entries.get("location", ""), int(entries.get("offset", 0)))
        end = place.offset + int(entries.get("length", size))
        found = place.file.stat().st_size if place.file.is_file() else 0
        if found < end:
            raise FormatError(
                f"{place.file} should hold {end} bytes or more for {proto.name}, found {found}; get it again"
            )
    else:
        content = onnx.numpy_helper.to_array(proto).tobytes()
    return StoredTensor(proto.name, shape, str(dtype), dtype.itemsize, size), content
