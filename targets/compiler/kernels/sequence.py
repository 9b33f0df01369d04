"""Small kernels that know about sequences: positions of new tokens, and the last token of each sequence."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import registers


def token_positions(offset: int) -> tirx.PrimFunc:
    """Builds ``position[b, s] = past[b] + s + offset``.

    Args:
        offset: Row of the position table that belongs to the first token.

    Returns:
        A function of ids int64 ``[B, S]`` (for its shape), past lengths int64 ``[B]``, and the output int64 ``[B, S]``.
    """
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def positions(ids_: T.handle, past_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        T.match_buffer(ids_, (batch, tokens), "int64")
        past = T.match_buffer(past_, (batch,), "int64")
        out = T.match_buffer(y, (batch, tokens), "int64")
        with T.sblock("root"):
            for b in range(batch):
                for s in range(tokens):
                    out[b, s] = past[b] + s + offset

    return positions


def last_token(columns: int) -> tirx.PrimFunc:
    """Builds ``y[b] = x[b, new[b] - 1]``: the row that predicts what follows.

    Returns:
        A function of x float32 ``[B, S, K]``, new lengths int64 ``[B]`` (values outside 1..S read a row inside), and
        the output float32 ``[B, K]``.
    """
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def take(x_: T.handle, new_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, tokens, columns), "float32")
        new = T.match_buffer(new_, (batch,), "int64")
        out = T.match_buffer(y, (batch, columns), "float32")
        with T.sblock("root"):
            for b in range(batch):
                row = registers((1,), "int64")
                row[0] = T.max(T.min(new[b], tokens), T.int64(1)) - 1
                for c in range(columns):
                    out[b, c] = x[b, row[0], c]

    return take
