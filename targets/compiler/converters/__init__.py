"""One function per operator that has kernels: from a node to Relax calls."""

from __future__ import annotations

from edgeq.discovery import modules_of
from edgeq.targets.compiler.converters.kernel_calls import Converter

CONVERTERS: dict[str, Converter] = {
    name: converter
    for module in modules_of(__name__)
    for name, converter in getattr(module, "CONVERTERS", {}).items()
}
"""By operator name, from the ``CONVERTERS`` of each file of this folder.

Each takes the calls, the inputs as Relax expressions, and the attributes with the node's name.
"""
