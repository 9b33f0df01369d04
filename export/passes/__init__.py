"""Graph passes that run between torch's exporter and the file, on :mod:`onnx_ir` models, in place."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgeq.export.passes.attention import merge_heads
from edgeq.export.passes.attention_mask import hide_by_a_lesser_number, repeat_mask_rows
from edgeq.export.passes.clean import drop_dead_code, plain_dimensions, share_derived_constants, strip_origin
from edgeq.export.passes.joined import drop_joins
from edgeq.export.passes.names import name_by_module
from edgeq.export.passes.reshapes import keep_leading_axes
from edgeq.graph_passes import Pass

LIFTED = "constants are initializers and nothing is unused"
AXES_KEPT = "reshapes keep the leading axes"
HEADS_MERGED = "attention takes heads side by side"
MASKS_REPEATED = "masks have a row for every query"
DERIVED_SHARED = "equal derived constants are one"
NAMED = "nodes have the names of their modules"


def passes(*, prefix: str, interface: Mapping[str, Sequence[str | int]]) -> tuple[Pass[ir.Model], ...]:
    """Returns the passes in the order in which they run.

    Args:
        prefix: See :func:`edgeq.export.passes.names.name_by_module`.
        interface: See :func:`edgeq.export.passes.clean.plain_dimensions`.
    """
    named = functools.update_wrapper(functools.partial(name_by_module, prefix=prefix), name_by_module)
    plain = functools.update_wrapper(functools.partial(plain_dimensions, interface=interface), plain_dimensions)
    return (
        Pass(drop_dead_code, ensures=(LIFTED,)),
        Pass(drop_joins, requires=(LIFTED,)),
        Pass(keep_leading_axes, requires=(LIFTED,), ensures=(AXES_KEPT,)),
        Pass(merge_heads, requires=(AXES_KEPT,), ensures=(HEADS_MERGED,)),
        Pass(repeat_mask_rows, requires=(HEADS_MERGED,), ensures=(MASKS_REPEATED,)),
        Pass(hide_by_a_lesser_number, requires=(LIFTED,)),
        Pass(drop_dead_code, ensures=(LIFTED,)),
        Pass(share_derived_constants, requires=(LIFTED,), ensures=(DERIVED_SHARED,)),
        Pass(named, requires=(DERIVED_SHARED,), ensures=(NAMED,)),
        Pass(plain),
        Pass(strip_origin, requires=(NAMED,)),
    )
