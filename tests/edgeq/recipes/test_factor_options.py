"""A factorisation may have keys of its own in a recipe, which its file declares."""

from typing import ClassVar

import pydantic
import pytest

from edgeq.factor.kinds import METHODS
from edgeq.recipes.factor_section import FactorSection, own_options
from edgeq.recipes.section import Section


class Ordered:
    """A factorisation with one key that no other has."""

    own_options: ClassVar = {"order": (int, 2)}


def test_keys_of_one_method_become_fields_of_the_table():
    fields = own_options([*METHODS.values(), Ordered])
    made = pydantic.create_model("Made", __base__=Section, **fields)
    assert made().order == 2
    assert made(order=3).order == 3
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        made(order="3")


def test_keys_of_single_methods_count_in_a_digest_only_where_they_are_set():
    assert FactorSection.added_keys == frozenset(own_options(METHODS.values()))
