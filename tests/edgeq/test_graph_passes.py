"""Passes say what they need, what they give and what they changed; an error names the pass."""

import pytest

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.export.passes import passes
from edgeq.graph_passes import Pass, run_in_order
from edgeq.targets.compiler.passes import PASSES


def add_one(graph):
    graph.append("one")
    return 1


def double(graph):
    graph.extend(list(graph))
    return len(graph) // 2


def refuse(graph):
    raise UnsupportedError("layer 3: this form is not known")


def fail(graph):
    return {}["missing"]


def test_passes_run_in_order_and_say_what_they_changed():
    graph = []
    order = [Pass(add_one, ensures=("ones",)), Pass(double, requires=("ones",)), Pass(add_one)]
    assert run_in_order(order, graph) == {"add_one": 2, "double": 1}
    assert graph == ["one"] * 3


def test_a_pass_that_comes_too_early_is_an_error_before_anything_changes():
    graph = []
    with pytest.raises(ValueError, match="double requires that ones, which no pass before it ensures"):
        run_in_order([Pass(add_one), Pass(double, requires=("ones",)), Pass(add_one, ensures=("ones",))], graph)
    assert graph == []


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (refuse, UnsupportedError, r"layer 3: this form is not known \(graph pass refuse\)"),
        (fail, EdgeqError, r"graph pass fail failed \(KeyError: 'missing'\)"),
    ],
)
def test_an_error_names_the_pass(change, kind, message):
    with pytest.raises(kind, match=message) as caught:
        run_in_order([Pass(change)], [])
    assert type(caught.value) is kind


@pytest.mark.parametrize("order", [PASSES, passes(prefix="model.", interface={})], ids=["compiler", "export"])
def test_no_order_of_edgeq_lacks_what_a_pass_needs_and_every_need_is_one(order):
    """Passes that only count up: the facts alone are looked at."""
    assert run_in_order([Pass(add_one, one.requires, one.ensures) for one in order], [])
    needed = {fact for one in order for fact in one.requires}
    assert needed, "an order without needs would hold in any order"
    for fact in needed:
        without = [Pass(add_one, one.requires, tuple(e for e in one.ensures if e != fact)) for one in order]
        with pytest.raises(ValueError, match="which no pass before it ensures"):
            run_in_order(without, [])
