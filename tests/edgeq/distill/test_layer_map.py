"""Which layers are compared."""

import pytest

from edgeq.distill.layer_map import layer_map
from edgeq.errors import UsageError


def test_every_second_of_twelve():
    mapped = layer_map(student=6, teacher=12)
    assert mapped.layers == (1, 3, 5, 7, 9, 11)
    assert mapped.hidden == ((0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12))


def test_all_layers_are_compared_with_themselves():
    mapped = layer_map(student=3, teacher=3)
    assert mapped.blocks == ((0, 0), (1, 1), (2, 2))
    assert mapped.hidden == ((0, 0), (1, 1), (2, 2), (3, 3))


def test_five_of_twelve_as_in_xtc():
    mapped = layer_map(student=5, teacher=12, kept=[2, 4, 6, 8, 10])
    assert mapped.hidden == ((0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11))


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0, 12], "layer 12 is unknown: the teacher has layers 0 to 11"),
        ([0, -1], "layer -1 is unknown"),
        ([3, 1], "rising order"),
        ([3, 3], "different"),
        ([1], "has 2 layers, but 1"),
    ],
)
def test_wrong_layers(kept, words):
    with pytest.raises(UsageError, match=words):
        layer_map(student=2, teacher=12, kept=kept)


def test_numbers_that_do_not_divide_need_names():
    with pytest.raises(UsageError, match="say which layers it keeps"):
        layer_map(student=5, teacher=12)
