"""Weight quantizers of quantization-aware training, one method a file.

Every quantizer returns ``scale * (code - zero_point)`` in its forward pass: the float expression with which stored
weights are decoded, so that a model is trained with the weights that it will be deployed with.
"""

from __future__ import annotations

from edgeq.discovery import classes_of
from edgeq.errors import UsageError
from edgeq.quant.grids import GridName
from edgeq.quant.plan import GradientName, StartRule
from edgeq.quant.quantizers.base import WeightQuantizer

QUANTIZERS: dict[str, type[WeightQuantizer]] = classes_of(__name__, WeightQuantizer, having="method")  # type: ignore[type-abstract]
"""Methods by their names in recipes: whatever the files of this folder define."""

METHOD_OF_BITS: dict[int, str] = {1: "bwn", 2: "twn", 4: "uniform", 8: "uniform"}
"""What stands in at a bit width for a method that does not define it, on the way down to one that it does."""


def make_quantizer(
    method: str,
    *,
    bits: int,
    per_row: bool = False,
    gradient: GradientName | None = None,
    grid: GridName | None = None,
    start: StartRule = "method",
) -> WeightQuantizer:
    """Makes a quantizer; call its ``initialise`` with the weights before use.

    Args:
        method: One of :data:`QUANTIZERS`.
        bits: Bits of one code.
        per_row: One scale a row, or one for the matrix.
        gradient: Gradient of the latent weights; None for the method's own.
        grid: ``ternary`` or ``balanced`` at 2 bits, for methods that define both.
        start: Where the learned numbers start.

    Raises:
        UsageError: If the method is unknown, or has no such bits, gradient, grid or start.
    """
    if method not in QUANTIZERS:
        raise UsageError(f"quantizers are {', '.join(sorted(QUANTIZERS))}; found {method!r}")
    return QUANTIZERS[method](bits=bits, per_row=per_row, gradient=gradient, grid=grid, start=start)


def method_at(method: str, bits: int) -> str:
    """Returns ``method`` where it defines ``bits``, else the method that stands in for it there.

    Raises:
        UsageError: If no method has this bit width, or ``method`` is unknown.
    """
    if method not in QUANTIZERS:
        raise UsageError(f"quantizers are {', '.join(sorted(QUANTIZERS))}; found {method!r}")
    if bits in QUANTIZERS[method].supported_bits:
        return method
    if bits not in METHOD_OF_BITS:
        raise UsageError(f"weights have {', '.join(map(str, METHOD_OF_BITS))} bits, found {bits}")
    return METHOD_OF_BITS[bits]
