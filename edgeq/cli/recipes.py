"""``recipes``: the built-in recipes with their meaning."""

from __future__ import annotations

import dataclasses

from edgeq.cli.console import print_json, print_table
from edgeq.cli.verb import Json, verb


@verb("recipes", example="recipes")
def recipes(*, as_json: Json = False) -> None:
    """List the built-in recipes with their meaning; those that train need --train-data.

    Letters in a name say bits: w2e2a8 is 2-bit weights, 2-bit embedding tables and 8-bit activations.
    """
    from edgeq.recipes import list_recipes

    known = list_recipes()
    if as_json:
        print_json([dataclasses.asdict(recipe) for recipe in known])
    else:
        rows = [[recipe.name, "yes" if recipe.trains else "", recipe.bits, recipe.summary] for recipe in known]
        print_table(["recipe", "trains", "bits", "meaning"], rows)
