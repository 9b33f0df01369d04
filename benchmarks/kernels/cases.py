"""The kernels that are measured: those that BERT-base and GPT-2 small spend their time in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from tvm import tirx

from edgeq.formats.low_bit import PackedMatrix
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels.attention import attention
from edgeq.targets.compiler.kernels.cached_attention import Columns, cached_attention
from edgeq.targets.compiler.kernels.cached_head import CachedHead
from edgeq.targets.compiler.kernels.float_matmul import float_matmul, panel_count
from edgeq.targets.compiler.kernels.layer_norm import layer_norm
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.matmul_settings import Epilogue
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.compiler.kernels.weight_only_matmul import weight_only_matmul

INTEGER, FLOAT, READ = "int8 products in registers", "float32 multiply-accumulates in registers", "reading memory"
ZERO_POINTS = {1: 0.5, 2: 1.0, 4: 8.0, 8: 128.0}
HEADS, HEAD_SIZE = 12, 64
WIDTH = HEADS * HEAD_SIZE
CONTEXT = 1024
CODES_BYTES = 96 * 2**20
"""Codes of a matrix that is larger than any cache."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel at one size.

    Attributes:
        name: Operator and sizes.
        build: Makes the kernel.
        arrays: Makes its arguments, the outputs last.
        work: Multiply-accumulates or bytes of one call.
        peak: Name of the limit that it is compared with.
    """

    name: str
    build: Callable[[], tirx.PrimFunc]
    arrays: Callable[[], list[np.ndarray]]
    work: float
    peak: str


def all_cases(isa: Isa) -> list[Case]:
    """Returns every case for one instruction set."""
    generator = np.random.default_rng(0)
    cases = [product(isa, n, k, m, bits) for bits in (1, 2, 4, 8) for n, k, m in ((768, 768, 128), (3072, 768, 1))]
    cases += [product(isa, n, k, m, 2) for n, k, m in ((3072, 768, 128), (768, 3072, 128), (768, 3072, 1))]
    cases += [product(isa, 3072, 768, m, 2) for m in (2, 3, 4, 8, 31)]
    cases += [product_from_memory(isa, bits) for bits in (2, 4, 8)]
    cases += [product(isa, 50257, 768, 1, 2), product(isa, 3072, 768, 128, 2, "gelu")]
    cases += [float_product(isa, n, 768, m) for n, m in ((768, 1), (768, 128), (3072, 128))]
    cases += [weight_only(isa, 3072, 768, m) for m in (1, 128)]
    cases += [self_attention(isa, tokens) for tokens in (32, 128, 256)]
    cases += [attention_step(isa, past, generator) for past in (150, 1000)]
    cases += [rows_of(128), rows_of(1), norm_of(128), norm_of(1)]
    return cases


def product(isa: Isa, n: int, k: int, m: int, bits: int, epilogue: Epilogue = "none") -> Case:
    """The low-bit matmul of ``m`` tokens with an ``n x k`` matrix."""
    matrix = PackedMatrix(n, k, bits, ZERO_POINTS[bits], 1)

    def arrays() -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        words = generator.integers(-(2**31), 2**31, (m, padded_columns(k) // 4)).astype(np.int32)
        weight = generator.integers(-(2**31), 2**31, matrix.packed_shape[:3]).astype(np.int32)
        ones = np.ones(1, np.float32)
        outputs = [np.zeros(n, np.float32), np.zeros((m, n), np.float32)]
        return [words, np.full(m, 1e-4, np.float32), np.zeros(m, np.int32), weight, ones, *outputs]

    suffix = "" if epilogue == "none" else f", {epilogue}"
    return Case(
        f"product {n}x{k}, {bits} bits, {m} tokens{suffix}",
        lambda: low_bit_matmul(isa, matrix, rank=1, has_bias=True, epilogue=epilogue),
        arrays,
        float(n) * k * m,
        INTEGER,
    )


def product_from_memory(isa: Isa, bits: int) -> Case:
    """One token and a matrix larger than any cache; what counts are the bytes of its codes."""
    case = product(isa, 8 * CODES_BYTES // bits // WIDTH // 16 * 16, WIDTH, 1, bits)
    return dataclasses.replace(case, name=f"{case.name}, from memory", work=float(CODES_BYTES), peak=READ)


def float_product(isa: Isa, n: int, k: int, m: int) -> Case:
    """The float32 product."""
    shapes = [(m, k), (panel_count(n), k, 16), (n,), (m, n)]
    return Case(
        f"float product {n}x{k}, {m} tokens",
        lambda: float_matmul(isa, k, n, rank=1, has_bias=True),
        lambda: [np.ones(shape, np.float32) for shape in shapes],
        float(n) * k * m,
        FLOAT,
    )


def weight_only(isa: Isa, n: int, k: int, m: int) -> Case:
    """Float activations, 2-bit weights."""
    matrix = PackedMatrix(n, k, 2, 1.0, 1)

    def arrays() -> list[np.ndarray]:
        weight = np.random.default_rng(0).integers(-(2**31), 2**31, matrix.packed_shape[:3]).astype(np.int32)
        floats = [np.ones(shape, np.float32) for shape in ((m, k), (1,), (n,), (m, n))]
        return [floats[0], weight, *floats[1:]]

    return Case(
        f"weight-only matmul {n}x{k}, 2 bits, {m} tokens",
        lambda: weight_only_matmul(isa, matrix, rank=1, has_bias=True),
        arrays,
        float(n) * k * m,
        FLOAT,
    )


def self_attention(isa: Isa, tokens: int) -> Case:
    """Attention of BERT-base."""
    states = (1, tokens, WIDTH)

    def arrays() -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        q, k, v = generator.standard_normal((3, *states)).astype(np.float32)
        return [q, k, v, np.zeros((1, 1, 1, tokens), np.float32), np.zeros(states, np.float32)]

    return Case(
        f"attention {HEADS}x{HEAD_SIZE}, {tokens} tokens",
        lambda: attention(isa, HEADS, HEAD_SIZE, scale=HEAD_SIZE**-0.5, masked=True),
        arrays,
        2.0 * WIDTH * tokens * tokens,
        FLOAT,
    )


def attention_step(isa: Isa, past: int, generator: np.random.Generator) -> Case:
    """One token of GPT-2 small over a float16 cache; what counts are the bytes of keys and values."""
    head = CachedHead(HEADS, HEAD_SIZE, "float16")

    def arrays() -> list[np.ndarray]:
        q = generator.standard_normal((1, 1, 3 * WIDTH)).astype(np.float32)
        keys = generator.standard_normal((1, HEADS, CONTEXT // 16, HEAD_SIZE, 16)).astype(np.float16)
        values = generator.standard_normal((1, HEADS, CONTEXT, HEAD_SIZE)).astype(np.float16)
        return [q, np.array([past]), np.array([1]), keys, values, np.zeros((1, 1, WIDTH), np.float32)]

    return Case(
        f"attention over a cache of {past}, 1 token",
        lambda: cached_attention(isa, head, queries=Columns(3 * WIDTH, 0), scale=HEAD_SIZE**-0.5, causal=True),
        arrays,
        4.0 * WIDTH * (past + 1),
        READ,
    )


def rows_of(tokens: int) -> Case:
    """The quantizer of rows; bytes in and out."""
    def arrays() -> list[np.ndarray]:
        x = np.random.default_rng(0).standard_normal((tokens, WIDTH)).astype(np.float32)
        return [x, np.zeros((tokens, WIDTH // 4), np.int32), np.zeros(tokens, np.float32), np.zeros(tokens, np.int32)]

    return Case(
        f"quantizer of rows of {WIDTH}, {tokens} tokens",
        lambda: quantize_rows(WIDTH, rank=1, static=False),
        arrays,
        5.0 * tokens * WIDTH,
        READ,
    )


def norm_of(tokens: int) -> Case:
    """Layer normalisation of a sum; bytes in and out."""
    return Case(
        f"residual layer norm of {WIDTH}, {tokens} tokens",
        lambda: layer_norm(WIDTH, rank=1, epsilon=1e-12, residual=True),
        lambda: [np.ones(shape, np.float32) for shape in ((tokens, WIDTH),) * 2 + ((WIDTH,),) * 2 + ((tokens, WIDTH),)],
        12.0 * tokens * WIDTH,
        READ,
    )
