"""The bytes of a run: ``ledger.json``."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from edgeq.results.base import STRICT, Result


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """Where the bytes of one matrix, or of one float tensor, are.

    Attributes:
        tensor: Name of the module (low-bit) or of the tensor (float).
        kind: ``"linear"``, ``"embedding"``, ``"float"``, or ``"integers"`` for what a graph computes shapes with.
        shape: Logical shape: ``(N, K)`` for a low-bit matrix.
        nominal_bits: Bits of one code, or of one float.
        stored_bits: All bits stored for this row, divided by the number of weights.
        code_bytes: Codes without padding, rounded up to a byte.
        scale_bytes: Scales.
        padding_bytes: Bytes that only fill up tiles.
        float_bytes: Bytes of a tensor that is stored as floats (or integers).
        reason: Why it stayed float; None for a low-bit matrix.

    All bytes count every copy: each graph of an encoder-decoder stores its small tensors itself.
    """

    tensor: str
    kind: str
    shape: tuple[int, ...]
    nominal_bits: int
    stored_bits: float
    code_bytes: int
    scale_bytes: int
    padding_bytes: int
    float_bytes: int
    reason: str | None

    __pydantic_config__ = STRICT

    @property
    def weights(self) -> int:
        """Number of weights, each counted once; integers of a graph are none."""
        return 0 if self.kind == "integers" else math.prod(self.shape)

    @property
    def is_low_bit(self) -> bool:
        """Whether it is a matrix of codes."""
        return self.kind in ("linear", "embedding")

    @property
    def stored_bytes(self) -> int:
        """All bytes of this row."""
        return self.code_bytes + self.scale_bytes + self.padding_bytes + self.float_bytes


@dataclasses.dataclass(frozen=True)
class LedgerTotals:
    """Sums of a model's ledger; :class:`edgeq.ledger.Ledger` says what each is."""

    weights: int
    replaced_weights: int
    stored_bytes: int
    code_bytes: int
    scale_bytes: int
    padding_bytes: int
    float_bytes: int
    float32_bytes: int
    ratio: float
    paper_bytes: int
    paper_ratio: float
    tensor_file_bytes: int
    folder_bytes: int

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """What pruning a vocabulary saved.

    Attributes:
        tokens: Rows of tokens that stayed.
        of: Rows that there were.
        left_out_bytes: What the others would take, stored as those that stayed.
    """

    tokens: int
    of: int
    left_out_bytes: int

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class CacheBytes:
    """The keys and values of a bundle that generates text, in memory.

    Attributes:
        dtype: Their type.
        token_bytes: Bytes of one token in all layers, scales included; of a generated token for an encoder-decoder.
        source_token_bytes: Bytes of one token of an encoder input; 0 for other models.
    """

    dtype: str
    token_bytes: int
    source_token_bytes: int

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class StoredBytes:
    """The ledger of one model as it is written down.

    Attributes:
        path: What was read.
        form: ``"checkpoint"``, ``"onnx"`` or ``"bundle"``.
        totals: Sums.
        rows: One a low-bit matrix or float tensor, in stored order.
        vocabulary: Tokens that were left out; None where all stayed.
        int8_attention: How many self-attentions are int8.
        cache: Keys and values in memory, of bundles that generate text.
    """

    path: str
    form: str
    totals: LedgerTotals
    rows: tuple[LedgerRow, ...]
    vocabulary: LeftOut | None = None
    int8_attention: int = 0
    cache: CacheBytes | None = None

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class RunLedger(Result):
    """``ledger.json``: the bytes of the float model's graph, and of what each stage wrote; bundles by target."""

    format: Literal["edgeq-ledger"] = dataclasses.field(default="edgeq-ledger", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT

    float: StoredBytes
    checkpoint: StoredBytes
    onnx: StoredBytes
    bundles: dict[str, StoredBytes]
