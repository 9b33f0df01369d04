"""Graph passes between the ONNX file and Relax: each turns a group of nodes into one that a kernel covers.

The nodes that they make exist only in memory, in the domain ``COMPILED_DOMAIN``.
"""

from __future__ import annotations

import onnx

from edgeq.graph_passes import Pass, run_in_order
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

FOLDED = "nodes that read constants alone are gone"
MASKS_READ_ONCE = "attention reads masks where they are smallest"
GATES_NAMED = "gates are Silu nodes"
FLOAT_LINEARS = "float layers are one node"
ACTIVATIONS_FUSED = "layers apply their activations"
RESIDUALS_NORMALISED = "additions in front of normalisations are taken in"

PASSES: tuple[Pass[GraphView], ...] = (
    Pass(fold_constants, ensures=(FOLDED,)),
    Pass(use_cache_in_place, requires=(FOLDED,)),
    Pass(drop_mask_expansion, ensures=(MASKS_READ_ONCE,)),
    Pass(add_masks_in_attention, requires=(MASKS_READ_ONCE,)),
    Pass(pick_columns_once),
    Pass(name_gates, ensures=(GATES_NAMED,)),
    Pass(fuse_float_linear, requires=(FOLDED,), ensures=(FLOAT_LINEARS,)),
    Pass(fuse_activations, requires=(GATES_NAMED,), ensures=(ACTIVATIONS_FUSED,)),
    Pass(
        fuse_residual_additions, requires=(FLOAT_LINEARS, ACTIVATIONS_FUSED), ensures=(RESIDUALS_NORMALISED,)
    ),
    Pass(add_in_products, requires=(ACTIVATIONS_FUSED, RESIDUALS_NORMALISED)),
    Pass(quantize_in_normalisations, requires=(RESIDUALS_NORMALISED,)),
    Pass(share_tables, requires=(FLOAT_LINEARS,)),
)
"""In the order in which they run."""


def run_passes(graph: onnx.GraphProto) -> dict[str, int]:
    """Runs every pass over ``graph``, in place; see :func:`edgeq.graph_passes.run_in_order`."""
    return run_in_order(PASSES, GraphView(graph))
