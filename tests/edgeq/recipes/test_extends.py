from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.recipes import load_recipe

BASE = """
name = "base"
summary = "a base"
[weights]
bits = 4
scale = "matrix"
[embeddings]
bits = 8
[[override]]
pattern = 'a'
bits = 8
"""


def test_tables_are_joined_and_lists_replaced(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "mine.toml").write_text(
        "extends = 'base.toml'\nname = 'mine'\noverride = []\n[weights]\nbits = 2\n"
    )
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.name, recipe.summary) == ("mine", "a base")
    assert (recipe.weights.bits, recipe.weights.scale, recipe.embeddings.bits) == (2, "matrix", 8)
    assert recipe.override == ()


def test_a_built_in_recipe_can_be_extended(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("extends = 'ptq-w8a8'\nname = 'mine'\n[weights]\nbits = 4\n")
    assert load_recipe(tmp_path / "mine.toml").weights.bits == 4
    assert load_recipe("ptq-w8a8").weights.bits == 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("extends = 'other.toml'", "does not exist"),
        ("extends = 'ptq-w8a9'", "did you mean 'ptq-w8a8'"),
        ("extends = 3", "extends should name a recipe, found 3"),
        ("extends = 'mine.toml'", "in a circle"),
    ],
)
def test_what_cannot_be_extended(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"{line}\nname = 'mine'\n")
    with pytest.raises(UsageError, match=message):
        load_recipe(tmp_path / "mine.toml")
