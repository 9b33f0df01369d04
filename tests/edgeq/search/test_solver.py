"""The integer program against all combinations there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.search.report import Choice, SearchLayer
from edgeq.search.solver import choose_widths, front, smallest, total_bytes, total_error

WIDTHS = (1, 2, 4, 8)


@st.composite
def problems(draw: st.DrawFn) -> list[SearchLayer]:
    layers = []
    for index in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 5000))
        errors = sorted((draw(st.floats(0, 1)) for _ in WIDTHS), reverse=True)
        choices = tuple(Choice(bits, bits * size + 64, error) for bits, error in zip(WIDTHS, errors, strict=True))
        layers.append(SearchLayer(f"layer{index}", "linear", choices))
    return layers


@given(problems(), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_combination_within_the_budget_is_better(layers: list[SearchLayer], share: float) -> None:
    low, high = smallest(layers), sum(layer.choices[-1].bytes for layer in layers)
    budget = int(low + share * (high - low))
    chosen = choose_widths(layers, budget=budget)
    assert list(chosen) == [layer.name for layer in layers]
    assert total_bytes(chosen) <= budget
    best = min(
        sum(choice.error for choice in combination)
        for combination in itertools.product(*(layer.choices for layer in layers))
        if sum(choice.bytes for choice in combination) <= budget
    )
    assert total_error(chosen) == pytest.approx(best, abs=1e-6)


def test_a_budget_that_is_too_small_is_an_error() -> None:
    layers = [SearchLayer("a", "linear", (Choice(1, 100, 0.5),))]
    with pytest.raises(EdgeqError, match="99 bytes"):
        choose_widths(layers, budget=99)


@given(problems())
@settings(max_examples=20, deadline=None)
def test_the_front_falls(layers: list[SearchLayer]) -> None:
    found = front(layers, points=6)
    sizes, errors = [total_bytes(one) for one in found], [total_error(one) for one in found]
    assert sizes[0] >= smallest(layers)
    for index in range(1, len(found)):
        assert errors[index] <= errors[index - 1] + 1e-6
