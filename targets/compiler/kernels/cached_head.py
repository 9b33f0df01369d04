"""Keys and values of one head in a cache: where they stand, and how they are read."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.cache_layout import SCALE_BYTES, block_bytes
from edgeq.targets.compiler.kernels.numerics import LANES, converted, splat

LOWEST = -3.4028234663852886e38
"""Score of a key that a query does not see."""
_LINE_BYTES = 64


@dataclasses.dataclass(frozen=True)
class CachedHead:
    """What is fixed when the kernel is built, of a cache of floats.

    Attributes:
        heads: Number of heads of keys and values.
        head_size: Columns of a head.
        dtype: Element type of the cache: ``float16`` or ``float32``.
        group: Heads of queries that look at one head of keys.
    """

    heads: int
    head_size: int
    dtype: str
    group: int = 1

    has_scales: ClassVar[bool] = False
    """Whether keys and values are codes, with a scale for each token."""

    @property
    def width(self) -> int:
        """Columns of the queries and of the result."""
        return self.heads * self.group * self.head_size

    def capacity(self, blocks: Any) -> Any:
        """Slots for tokens: a size of its own in the shape of the values."""
        del blocks
        return tirx.Var("capacity", "int64")

    def key_shape(self, batch: Any, blocks: Any) -> tuple[Any, ...]:
        """Shape of the cache of keys."""
        return batch, self.heads, blocks, self.head_size, LANES

    def value_shape(self, batch: Any, blocks: Any, capacity: Any) -> tuple[Any, ...]:
        """Shape of the cache of values."""
        del blocks
        return batch, self.heads, capacity, self.head_size

    def keys(self, cache: Any, batch: Any, head: Any, block: Any, column: Any) -> Any:
        """One column of 16 keys as float32."""
        return converted(cache[batch, head, block, column, T.ramp(0, 1, LANES)], "float32")

    def values(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """16 columns of one value as float32."""
        return converted(cache[batch, head, key, T.ramp(column, 1, LANES)], "float32")

    def value(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """One column of one value as float32."""
        return converted(cache[batch, head, key, column], "float32")

    def value_place(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """The element that holds one column of one value."""
        return cache[batch, head, key, column]

    @property
    def line(self) -> int:
        """Elements of a cache line."""
        return _LINE_BYTES // (2 if self.dtype == "float16" else 4)

    @property
    def value_lines(self) -> int:
        """Cache lines of one value."""
        return -(-self.head_size // self.line)

    def score(self, operands: Any, total: Any, vector: Any, length: Any) -> Any:
        """Scales 16 dot products with the keys of a vector; keys from ``length`` on get the lowest score."""
        score = total * self.factors(operands, total, vector)
        index = T.ramp(vector * LANES, T.int64(1), LANES)
        return T.Select(index < T.broadcast(length, LANES), score, splat(LOWEST, score))

    def factors(self, operands: Any, total: Any, vector: Any) -> Any:
        """What the dot products with 16 keys are multiplied by."""
        del vector
        return splat(operands.scale, total)


@dataclasses.dataclass(frozen=True)
class Int8CachedHead(CachedHead):
    """What is fixed when the kernel is built, of a cache of codes with a scale for each token and head.

    Queries stay float, and codes are widened in registers: that is what PyTorch and ONNX compute as well. A key's scale
    multiplies its dot product, a value's scale its weight: once a token instead of once a column.
    """

    dtype: str = "int8"

    has_scales: ClassVar[bool] = True

    def capacity(self, blocks: Any) -> Any:
        """Slots for tokens: those of all blocks."""
        return blocks * LANES

    def key_shape(self, batch: Any, blocks: Any) -> tuple[Any, ...]:
        """Shape of the cache of keys."""
        return batch, self.heads, blocks, block_bytes(self.head_size)

    def value_shape(self, batch: Any, blocks: Any, capacity: Any) -> tuple[Any, ...]:
        """Shape of the cache of values, which is that of keys."""
        del capacity
        return self.key_shape(batch, blocks)

    def keys(self, cache: Any, batch: Any, head: Any, block: Any, column: Any) -> Any:
        """Codes of one column of 16 keys as float32."""
        return T.cast(cache[batch, head, block, T.ramp(column * LANES, 1, LANES)], "float32x16")

    def values(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """Codes of 16 columns of one value as float32."""
        first = self.place(key) * self.head_size + column
        return T.cast(cache[batch, head, self.block(key), T.ramp(first, 1, LANES)], "float32x16")

    def value(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """Code of one column of one value as float32."""
        return T.cast(self.value_place(cache, batch, head, key, column), "float32")

    def value_place(self, cache: Any, batch: Any, head: Any, key: Any, column: Any) -> Any:
        """The element that holds the code of one column of one value."""
        return cache[batch, head, self.block(key), self.place(key) * self.head_size + column]

    @property
    def line(self) -> int:
        """Elements of a cache line."""
        return _LINE_BYTES

    def factors(self, operands: Any, total: Any, vector: Any) -> Any:
        """What the dot products with the codes of 16 keys are multiplied by."""
        return self.scales(operands.key_cache, operands, vector) * splat(operands.scale, total)

    def scales(self, cache: Any, operands: Any, vector: Any) -> Any:
        """Scales of 16 tokens."""
        stored = T.ramp(self.head_size * LANES, 1, LANES * SCALE_BYTES)
        return T.reinterpret(cache[operands.batch, operands.head, vector, stored], dtype="float32x16")

    def scale_place(self, slot: Any) -> Any:
        """Where the scale of a token stands in its block."""
        return T.ramp(self.head_size * LANES + self.place(slot) * SCALE_BYTES, 1, SCALE_BYTES)

    @staticmethod
    def block(slot: Any) -> Any:
        """Block of a token, whose slot is not below 0."""
        return T.shift_right(T.cast(slot, "int64"), T.int64(4))

    @staticmethod
    def place(slot: Any) -> Any:
        """Place of a token in its block."""
        return T.bitwise_and(T.cast(slot, "int64"), T.int64(LANES - 1))
