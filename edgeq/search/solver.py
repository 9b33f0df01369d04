"""The widths of least error within a budget: an integer program that HiGHS solves exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, sparse

from edgeq.errors import EdgeqError
from edgeq.search.report import Choice, SearchLayer


def choose_widths(layers: Sequence[SearchLayer], *, budget: int) -> dict[str, Choice]:
    """Chooses one width for each layer so that the sum of errors is least and the bytes fit.

    Args:
        layers: The layers, each with its widths.
        budget: Most bytes of all of them.

    Returns:
        The choice of each layer by name.

    Raises:
        EdgeqError: If even the narrowest widths do not fit, or the solver gives up.
    """
    options = [(index, choice) for index, layer in enumerate(layers) for choice in layer.choices]
    errors = np.array([choice.error for _, choice in options])
    sizes = np.array([choice.bytes for _, choice in options], np.float64)
    of_layer = sparse.csr_array(
        (np.ones(len(options)), ([index for index, _ in options], range(len(options)))), (len(layers), len(options))
    )
    largest = max(float(errors.max()), 1e-30)
    found = optimize.milp(
        # Between equal errors the smaller width wins.
        errors / largest + 1e-9 * sizes / max(float(sizes.sum()), 1.0),
        constraints=[
            optimize.LinearConstraint(of_layer, 1, 1),
            optimize.LinearConstraint(sizes[None] / budget, -np.inf, 1.0),
        ],
        integrality=np.ones(len(options)),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise EdgeqError(f"the widths for {budget} bytes were not found: {found.message}")
    return {layers[index].name: choice for (index, choice), taken in zip(options, found.x, strict=True) if taken > 0.5}


def smallest(layers: Sequence[SearchLayer]) -> int:
    """Returns the bytes of the narrowest widths of all layers."""
    return sum(min(choice.bytes for choice in layer.choices) for layer in layers)


def total_bytes(chosen: Mapping[str, Choice]) -> int:
    """Returns the bytes of a choice."""
    return sum(choice.bytes for choice in chosen.values())


def total_error(chosen: Mapping[str, Choice]) -> float:
    """Returns the sum of the errors of a choice."""
    return sum(choice.error for choice in chosen.values())


def front(layers: Sequence[SearchLayer], *, points: int = 12) -> list[dict[str, Choice]]:
    """Returns the best choices at budgets between the narrowest and the widest widths, without those that repeat."""
    low = smallest(layers)
    high = sum(max(choice.bytes for choice in layer.choices) for layer in layers)
    found: list[dict[str, Choice]] = []
    for budget in np.unique(np.geomspace(max(low, 1), max(high, 1), points).round().astype(np.int64)).tolist():
        chosen = choose_widths(layers, budget=max(budget, low))
        if chosen not in found:
            found.append(chosen)
    return found
