"""Graph passes between the ONNX file and Relax: each turns a group of nodes into one that a kernel covers.

The nodes that they make exist only in memory, in the domain ``COMPILED_DOMAIN``.
"""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView
from edgeq.targets.compiler.passes.activation import fuse_activations, name_gates
from edgeq.targets.compiler.passes.attention_mask import add_masks_in_attention, drop_mask_expansion
from edgeq.targets.compiler.passes.cache import use_cache_in_place
from edgeq.targets.compiler.passes.constants import fold_constants
from edgeq.targets.compiler.passes.float_linear import fuse_float_linear
from edgeq.targets.compiler.passes.relative_scores import pick_columns_once
from edgeq.targets.compiler.passes.residual import add_in_products, fuse_residual_additions
from edgeq.targets.compiler.passes.row_codes import quantize_in_normalisations
from edgeq.targets.compiler.passes.shared_table import share_tables

PASSES = (
    *(fold_constants, use_cache_in_place, drop_mask_expansion, add_masks_in_attention, pick_columns_once),
    *(name_gates, fuse_float_linear, fuse_activations, fuse_residual_additions, add_in_products),
    *(quantize_in_normalisations, share_tables),
)
"""In the order in which they run: a bias is taken in before an activation, both before residual additions."""


def run_passes(graph: onnx.GraphProto) -> None:
    """Runs every pass over ``graph``, in place."""
    view = GraphView(graph)
    for apply in PASSES:
        apply(view)
