"""Row quantizer against its definition in numpy, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows


def reference(x: np.ndarray, scale: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if scale is None:
        largest = np.maximum(np.abs(x).max(-1), np.float32(1e-30))
        scales, inverse = largest / np.float32(127), np.float32(127) / largest
    else:
        scales = np.full(x.shape[:-1], scale, np.float32)
        inverse = np.float32(1) / scales
    codes = np.clip(np.rint(x * inverse[..., None]), -127, 127).astype(np.int8)
    return codes, scales, codes.sum(-1, dtype=np.int32)


def outputs_for(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    words = np.full((*x.shape[:-1], padded_columns(x.shape[-1]) // 4), 0x55555555, np.int32)
    return words, np.zeros(x.shape[:-1], np.float32), np.zeros(x.shape[:-1], np.int32)


@pytest.mark.parametrize(("columns", "static"), [(1, False), (5, True), (16, False), (37, True), (53, False)])
def test_matches_numpy_at_odd_shapes(columns, static, target, compile_kernel):
    run = compile_kernel(quantize_rows(columns, rank=2, static=static), target)
    generator = np.random.default_rng(columns)
    for rows in (0, 1, 7):
        x = generator.standard_normal((2, rows, columns)).astype(np.float32) * 3
        if rows > 2:
            x[0, 1] = 0  # an all-zero token has no largest magnitude
            x[1, 2] *= 1e-36
            x[1, 0, 0] = 127 * 2.5  # lands on a tie: half to even
        given = [np.array([0.0213], np.float32)] if static else []
        codes, scales, sums = reference(x, 0.0213 if static else None)
        words, found_scales, found_sums = run(x, *given, *outputs_for(x), outputs=3)
        found = words.view(np.int8)
        assert np.array_equal(found[..., :columns], codes)
        assert not found[..., columns:].any()
        assert np.array_equal(found_scales, scales)
        assert np.array_equal(found_sums, sums)
