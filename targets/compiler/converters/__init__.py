"""One function per operator that has kernels: from a node to Relax calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeq.targets.compiler.converters import attention, linear, pooling, rows
from edgeq.targets.compiler.converters.kernel_calls import KernelCalls
from edgeq.targets.compiler.passes.attention_mask import BIASED_ATTENTION
from edgeq.targets.compiler.passes.cache import (
    CACHED_ATTENTION,
    LAST_TOKEN,
    SOURCE_ATTENTION,
    STORE_IN_CACHE,
    TOKEN_POSITIONS,
)
from edgeq.targets.compiler.passes.float_linear import FLOAT_LINEAR
from edgeq.targets.compiler.passes.relative_scores import GATHER_COLUMNS
from edgeq.targets.compiler.passes.residual import RESIDUAL_LAYER_NORM
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER

Converter = Callable[[KernelCalls, list[Any], dict[str, Any]], Any]

FLOAT_PRODUCT = "FloatProduct"
"""``Mul`` of float rows."""

CONVERTERS: dict[str, Converter] = {
    "Attention": attention.self_attention,
    BIASED_ATTENTION: attention.biased_attention,
    CACHED_ATTENTION: attention.attention_over_cache,
    "CumSum": pooling.running_sum,
    "Erf": rows.erf,
    FLOAT_LINEAR: linear.float_linear,
    FLOAT_PRODUCT: rows.multiply,
    GATHER_COLUMNS: rows.pick_columns,
    "Gelu": rows.gelu,
    "Int8Attention": attention.integer_attention,
    LAST_TOKEN: rows.last_token,
    "LayerNormalization": rows.normalise,
    "LowBitEmbedding": rows.low_bit_embedding,
    "LowBitLinear": linear.low_bit_linear,
    "MatMul": pooling.product,
    PANEL_GATHER: rows.panel_embedding,
    "ReduceL2": pooling.row_lengths,
    "ReduceMax": pooling.largest_rows,
    SOURCE_ATTENTION: attention.attention_over_source,
    STORE_IN_CACHE: attention.store_in_cache,
    "RMSNormalization": rows.divide_by_mean_square,
    "Relu": rows.relu,
    "RotaryEmbedding": rows.turn,
    "Sigmoid": rows.sigmoid,
    "Silu": rows.silu,
    "Split": rows.split,
    RESIDUAL_LAYER_NORM: rows.add_and_normalise,
    "Tanh": rows.tanh,
    TOKEN_POSITIONS: rows.token_positions,
}
"""By operator name; each takes the calls, the inputs as Relax expressions, and the attributes with the node's name."""
