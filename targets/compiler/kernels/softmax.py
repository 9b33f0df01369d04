"""The softmax of one row of scores that lies in cache."""

from __future__ import annotations

from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.numerics import LANES, exp, registers, tree_max, tree_sum
from edgeq.targets.compiler.kernels.script import macro


@macro
def softmax_row(scores, peaks, sums, row, key_vectors):
    """Leaves the numerators in ``scores[row]`` and their sum in ``sums[row]``; ``peaks[row]`` holds maxima by lane."""
    peak = registers((1,), "float32")
    weight = registers((1,), "float32x16")
    total = registers((1,), "float32x16")
    peak[0] = tree_max(peaks[row])
    total[0] = T.broadcast(T.float32(0), LANES)
    for t in range(key_vectors):
        weight[0] = exp(scores[row, T.ramp(t * LANES, 1, LANES)] - T.broadcast(peak[0], LANES))
        scores[row, T.ramp(t * LANES, 1, LANES)] = weight[0]
        total[0] = total[0] + weight[0]
    sums[row] = tree_sum(total[0])
