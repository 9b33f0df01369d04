"""What a model really weighs: every stored byte, by tensor, from the files themselves.

Nothing is recomputed from what a recipe promised. A checkpoint's sizes come from the safetensors
header, an ONNX model's from its initializers, a bundle's from its manifest; the description of the
low-bit matrices (``N``, ``K``, bits) comes from the configuration or the nodes beside them, and a
description that does not fit the bytes is an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UsageError
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.quantization_config import LeftOutTokens
from edgeq.formats.stored import StoredModel, StoredTensor, read_stored_model
from edgeq.results import CacheBytes, LedgerRow, LedgerTotals, LeftOut, StoredBytes

_SHAPES = "integers of the graph"


@dataclasses.dataclass(frozen=True)
class Ledger:
    """All rows of a model, and totals.

    Attributes:
        path: The file or folder that was read.
        form: ``"checkpoint"``, ``"onnx"`` or ``"bundle"``.
        rows: One row a low-bit matrix or float tensor, in stored order.
        tensor_file_bytes: Size of the files with tensors, such as ``model.safetensors`` or ``weights.bin``.
        folder_bytes: Size of everything in the folder (tokenizer, code, libraries).
        replaced_weights: Weights of the dense layers that factorised ones stand for, less what those store (all
            without biases); negative where factors are multiplied beforehand to more than the dense layer.
        vocabulary: Rows of tokens that stayed, and that there were; None where none was left out.
        left_out_bytes: What the other rows would take, stored as those that stayed.
        int8_attention: How many self-attentions are int8; they store nothing.
        cache: What a bundle keeps of every token of a text that it generates, in memory; None for other models.
    """

    path: str
    form: str
    rows: tuple[LedgerRow, ...]
    tensor_file_bytes: int
    folder_bytes: int
    replaced_weights: int = 0
    vocabulary: tuple[int, int] | None = None
    left_out_bytes: int = 0
    int8_attention: int = 0
    cache: CacheBytes | None = None

    @property
    def weights(self) -> int:
        """Number of weights in the model."""
        return sum(row.weights for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(row.stored_bytes for row in self.rows)

    @property
    def float32_bytes(self) -> int:
        """Bytes that the same model takes as float32, with dense matrices for its factors."""
        return 4 * (self.weights + self.replaced_weights)

    @property
    def ratio(self) -> float:
        """How many times smaller than float32 the stored tensors are."""
        return self.float32_bytes / self.stored_bytes if self.stored_bytes else math.nan

    @property
    def paper_bytes(self) -> int:
        """The model as papers count it: matrices at nominal bits; no scales, padding, biases or norms."""
        return sum(-(-row.weights * row.nominal_bits // 8) for row in self._matrices())

    @property
    def paper_ratio(self) -> float:
        """The ratio that belongs to :attr:`paper_bytes`."""
        weights = sum(row.weights for row in self._matrices()) + self.replaced_weights
        return 4 * weights / self.paper_bytes if self.paper_bytes else math.nan

    @property
    def is_compressed(self) -> bool:
        """Whether any matrix is stored in fewer than 32 bits, or as factors."""
        return bool(self.replaced_weights) or any(row.is_low_bit for row in self.rows)

    def _matrices(self) -> list[LedgerRow]:
        return [row for row in self.rows if row.is_low_bit or (row.kind == "float" and len(row.shape) > 1)]

    def total(self, field: str) -> int:
        """Sums one of the byte fields of the rows."""
        return sum(getattr(row, field) for row in self.rows)

    def stored(self) -> StoredBytes:
        """Returns the ledger as it is written down, totals included."""
        totals = LedgerTotals(
            weights=self.weights,
            replaced_weights=self.replaced_weights,
            stored_bytes=self.stored_bytes,
            code_bytes=self.total("code_bytes"),
            scale_bytes=self.total("scale_bytes"),
            padding_bytes=self.total("padding_bytes"),
            float_bytes=self.total("float_bytes"),
            float32_bytes=self.float32_bytes,
            ratio=self.ratio,
            paper_bytes=self.paper_bytes,
            paper_ratio=self.paper_ratio,
            tensor_file_bytes=self.tensor_file_bytes,
            folder_bytes=self.folder_bytes,
        )
        pruned = None if self.vocabulary is None else LeftOut(*self.vocabulary, self.left_out_bytes)
        return StoredBytes(self.path, self.form, totals, self.rows, pruned, self.int8_attention, self.cache)

    def to_json(self) -> dict[str, Any]:
        """Returns :meth:`stored` as plain JSON values."""
        return dataclasses.asdict(self.stored())


def ledger(path: str | Path) -> Ledger:
    """Reads the ledger of a checkpoint folder, an ONNX file or folder, or a bundle.

    Args:
        path: A folder with ``model.safetensors``, ``model.onnx`` or ``manifest.json``, or one ``.onnx`` file.

    Raises:
        UsageError: If ``path`` does not exist or holds no model.
        FormatError: If a file is damaged, or sizes in it contradict each other.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} does not exist; give a checkpoint, an ONNX model or a bundle")
    stored = read_stored_model(path)
    folder = path if path.is_dir() else path.parent
    rows = tuple(_rows(stored))
    factors = sum(row.weights for row in rows if len(row.shape) > 1 and stored.is_factor(row.tensor))
    pruned = stored.vocabulary
    return Ledger(
        path=str(path),
        form=stored.form,
        rows=rows,
        replaced_weights=sum(stored.factorised.values()) - factors,
        tensor_file_bytes=sum(file.stat().st_size for file in stored.tensor_files),
        folder_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        vocabulary=None if pruned is None else (pruned.tokens, pruned.of),
        left_out_bytes=0 if pruned is None else _left_out(rows, stored, pruned),
        int8_attention=stored.int8_attention,
        cache=None if stored.cache is None else CacheBytes(**dataclasses.asdict(stored.cache)),
    )


def _left_out(rows: Sequence[LedgerRow], stored: StoredModel, pruned: LeftOutTokens) -> int:
    """Returns what the rows of tokens that left would take beside those that stayed."""
    total = 0
    for row in rows:
        if row.tensor in stored.matrices and row.tensor in pruned.matrices:
            spec = stored.matrices[row.tensor].spec
            scales = pruned.of if spec.scales == spec.rows else spec.scales
            whole = dataclasses.replace(spec, rows=pruned.of, scales=scales)
            total += whole.packed_bytes + whole.scale_bytes - row.stored_bytes
        elif any(row.tensor.endswith(f"{name}.weight") for name in pruned.matrices) and row.shape:
            total += row.stored_bytes // row.shape[0] * (pruned.of - pruned.tokens)
    return total


def _rows(stored: StoredModel) -> Iterable[LedgerRow]:
    """Yields a row for every low-bit matrix with its scales, then for every other tensor, in stored order."""
    scale_owner = {matrix.scale: name for name, matrix in stored.matrices.items()}
    code_owner = {matrix.codes: name for name, matrix in stored.matrices.items()}
    for tensor in stored.tensors.values():
        if tensor.name in code_owner:
            name = code_owner[tensor.name]
            yield _low_bit_row(name, stored)
        elif tensor.name not in scale_owner:
            yield _float_row(tensor, stored)


def _low_bit_row(name: str, stored: StoredModel) -> LedgerRow:
    matrix = stored.matrices[name]
    codes = stored.tensors[matrix.codes]
    scale = stored.tensors[matrix.scale]
    spec: PackedMatrix = matrix.spec
    if codes.bytes != spec.packed_bytes:
        raise FormatError(
            f"{stored.path}: {codes.name} should take {spec.packed_bytes} bytes for {spec.rows} x "
            f"{spec.columns} codes of {spec.bits} bits, found {codes.bytes}; the file is damaged"
        )
    code_bytes, scale_bytes = -(-spec.code_bits // 8), scale.copies * scale.bytes
    return LedgerRow(
        tensor=name,
        kind=matrix.kind,
        shape=(spec.rows, spec.columns),
        nominal_bits=spec.bits,
        stored_bits=8 * (codes.copies * codes.bytes + scale_bytes) / (spec.rows * spec.columns),
        code_bytes=codes.copies * code_bytes,
        scale_bytes=scale_bytes,
        padding_bytes=codes.copies * (codes.bytes - code_bytes),
        float_bytes=0,
        reason=None,
    )


def _float_row(tensor: StoredTensor, stored: StoredModel) -> LedgerRow:
    entries, stored_bytes = math.prod(tensor.shape), tensor.copies * tensor.bytes
    kind, reason = ("float", _why_float(tensor, stored)) if "float" in tensor.dtype else ("integers", _SHAPES)
    return LedgerRow(
        tensor=tensor.name,
        kind=kind,
        shape=tensor.shape,
        nominal_bits=8 * tensor.item_bytes,
        stored_bits=8 * stored_bytes / entries if entries else 0.0,
        code_bytes=0,
        scale_bytes=0,
        padding_bytes=0,
        float_bytes=stored_bytes,
        reason=reason if tensor.copies == 1 else f"{reason}; in {tensor.copies} graphs",
    )


def _why_float(tensor: StoredTensor, stored: StoredModel) -> str:
    """The recorded reason for this tensor's module, or what the tensor's role and shape say."""
    for module, reason in stored.kept_float.items():
        if tensor.name == f"{module}.weight" or tensor.name.endswith(f".{module}.weight"):
            return reason
    lower = tensor.name.lower()
    if len(tensor.shape) <= 1:
        if "norm" in lower or ".ln_" in lower:
            return "layer norm: one float a channel"
        return "bias: one float a row" if lower.endswith("bias") else "vector"
    if stored.is_factor(tensor.name):
        return "a factor, or a product of factors"
    return "no reason recorded" if stored.matrices else "model is not compressed"


def grouped(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Joins the vectors (biases, norms, integers) of one reason into one row; matrices keep theirs."""
    kept: list[LedgerRow] = []
    vectors: dict[tuple[str, str, int], list[LedgerRow]] = {}
    for row in rows:
        if not row.is_low_bit and len(row.shape) <= 1:
            vectors.setdefault((row.kind, row.reason or "", row.nominal_bits), []).append(row)
        else:
            kept.append(row)
    return kept + [_joined(group) for group in vectors.values()]


def _joined(group: Sequence[LedgerRow]) -> LedgerRow:
    if len(group) == 1:
        return group[0]
    return dataclasses.replace(
        group[0],
        tensor=f"({len(group)} vectors)",
        shape=(sum(math.prod(row.shape) for row in group),),
        float_bytes=sum(row.float_bytes for row in group),
    )


def summary_line(book: Ledger) -> str:
    """One sentence with the stored size beside the size as papers count it."""
    parts = []
    if book.is_compressed:
        parts.append(f"{megabytes(book.stored_bytes)} stored, {book.ratio:.2f}x smaller than float32")
        paper = f"{megabytes(book.paper_bytes)} and {book.paper_ratio:.2f}x"
        parts.append(f"counted as papers do (nominal bits of the matrices alone): {paper}")
    else:
        parts.append(f"{megabytes(book.stored_bytes)} stored, nothing compressed")
    if book.vocabulary is not None:
        tokens, of = book.vocabulary
        parts.append(f"{tokens:,} of {of:,} tokens stay, the others would take {megabytes(book.left_out_bytes)}")
    if book.int8_attention:
        parts.append(f"attention of {book.int8_attention} layers in int8")
    if book.cache is not None:
        parts.append(cache_sentence(book.cache))
    return "; ".join(parts)


def cache_sentence(cache: CacheBytes) -> str:
    """Says what each token takes in memory while a text is generated."""
    read = f", {cache.source_token_bytes:,} for one of the encoder input" if cache.source_token_bytes else ""
    return f"keys and values in {cache.dtype}: {cache.token_bytes:,} bytes of memory for each token{read}"


def megabytes(count: int | float) -> str:
    """Formats bytes as MB (10**6 bytes), or kB below 0.1 MB."""
    if not count:
        return "0"
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
