"""The limit of bytes, looked at before the long stages: what a recipe will store at least, and what it has stored."""

from __future__ import annotations

from pathlib import Path

from edgeq.checkpoint import empty_model, read_adapter
from edgeq.errors import EdgeqError, UsageError
from edgeq.ledger import ledger, megabytes
from edgeq.quant.float_layers import planned_bytes
from edgeq.recipes import Recipe, plan_layers


def check_planned_size(folder: Path, recipe: Recipe, *, limit: int | None, task: str | None) -> None:
    """Refuses a recipe whose matrices alone take more than the limit, before anything is made.

    Recipes that drop layers, factorise or leave out tokens are judged once the model is there.

    Args:
        folder: The float checkpoint.
        recipe: The recipe.
        limit: Largest size of the weights in bytes; None for no limit.
        task: What to make of the model.

    Raises:
        UsageError: If they do.
    """
    if limit is None or recipe.changes_shapes:
        return
    adapter = read_adapter(folder, task=task)
    model = empty_model(folder, adapter)
    # What a task does not use, such as an encoder's pooler, is in no bundle.
    unused = set(adapter.optional_modules)
    plans = [plan for plan in plan_layers(recipe, adapter) if not unused & set(plan.name.split("."))]
    least = sum(planned_bytes(plan, model.get_submodule(plan.name)) for plan in plans)
    if least > limit:
        raise UsageError(
            f"--max-bytes {limit:,} is not possible with recipe {recipe.name!r}: its matrices alone take {least:,} "
            f"bytes ({megabytes(least)}); take a recipe of fewer bits, or let 'edgeq search' find one"
        )


def check_stored_size(model: Path, *, limit: int | None) -> None:
    """Stops a run whose matrices, as exported, already take more than the limit.

    Raises:
        EdgeqError: If they do.
    """
    if limit is None:
        return
    # Biases, norms and constants of graphs differ by some bytes between a graph and its bundle; matrices do not.
    stored = sum(row.stored_bytes for row in ledger(model).rows if row.is_low_bit)
    if stored > limit:
        raise EdgeqError(
            f"the matrices in {model} alone take {stored:,} bytes ({megabytes(stored)}), and --max-bytes allows "
            f"{limit:,}; take a recipe of fewer bits, or let 'edgeq search' find one"
        )
