"""Kronecker layers against the product that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgeq.errors import UsageError
from edgeq.factor.decompose import kronecker_sum, nearest_kronecker
from edgeq.factor.kinds.kronecker import KroneckerLinear, KroneckerSpec
from edgeq.factor.kinds.kronecker_table import EmbeddingSpec, HeadSpec, KroneckerEmbedding, KroneckerHead

sizes = st.integers(1, 6)


def _layer(spec: KroneckerSpec) -> tuple[KroneckerLinear, torch.Tensor, torch.Tensor | None]:
    """A random layer in float64, and the dense matrix and bias that it stands for."""
    generator = torch.Generator().manual_seed(1)
    layer = KroneckerLinear(spec).double()
    left, right = (
        torch.randn(spec.terms, *shape, generator=generator, dtype=torch.float64) for shape in (spec.left, spec.right)
    )
    layer.set_factors(left, right)
    bias = torch.randn(spec.rows, generator=generator, dtype=torch.float64) if spec.bias else None
    if bias is not None:
        layer.set_bias(bias)
    return layer, sum(torch.kron(a, b) for a, b in zip(left, right, strict=True)), bias


@given(m1=sizes, n1=sizes, m2=sizes, n2=sizes, terms=st.integers(1, 3), bias=st.booleans())
@settings(max_examples=60, deadline=None)
def test_layer_equals_the_dense_product(m1: int, n1: int, m2: int, n2: int, terms: int, bias: bool) -> None:
    spec = KroneckerSpec((m1, n1), (m2, n2), terms, bias)
    layer, dense, bias_values = _layer(spec)
    x = torch.randn(2, 3, n1 * n2, dtype=torch.float64)
    assert torch.allclose(layer(x), functional.linear(x, dense, bias_values), atol=1e-12)
    assert sum(parameter.numel() for parameter in layer.parameters()) == spec.parameters


@pytest.mark.parametrize("shapes", [((6, 5), (1, 2)), ((3, 10), (2, 1)), ((2, 8), (5, 3)), ((8, 2), (3, 5))])
def test_gradients_are_those_of_the_dense_product(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    spec = KroneckerSpec(*shapes, 2, bias=True)
    layer, _, _ = _layer(spec)
    x = torch.randn(4, spec.columns, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    left, right = layer.left.weight, layer.right.weight

    def through_factors(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"left.weight": a, "right.weight": b}, (x.detach(),))

    assert torch.autograd.gradcheck(through_factors, (left, right))


@given(m1=sizes, n1=sizes, m2=sizes, n2=sizes)
@settings(max_examples=40, deadline=None)
def test_nearest_product_of_a_product_is_itself(m1: int, n1: int, m2: int, n2: int) -> None:
    left, right = torch.randn(1, m1, n1), torch.randn(1, m2, n2)
    matrix = torch.kron(left[0], right[0])
    found = kronecker_sum(*nearest_kronecker(matrix, (m1, n1), (m2, n2), terms=1))
    assert torch.allclose(found, matrix, atol=1e-4 * float(matrix.abs().max()))


def test_nearest_product_is_no_worse_than_others_and_gets_better_with_terms() -> None:
    matrix = torch.randn(12, 20)
    errors = []
    for terms in (1, 3, 6):
        left, right = nearest_kronecker(matrix, (4, 10), (3, 2), terms=terms)
        errors.append(float((kronecker_sum(left, right) - matrix).norm()))
        moved = kronecker_sum(left + 1e-3 * torch.randn_like(left), right)
        assert float((moved - matrix).norm()) > errors[-1]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4  # six terms are as many as the small factor has entries


@pytest.mark.parametrize(("left", "right"), [((500, 32), (1, 2)), ((8, 2), (63, 32)), ((40, 40), (3, 2))])
def test_factors_start_with_gradients_as_large_as_those_of_the_matrix(
    left: tuple[int, int], right: tuple[int, int]
) -> None:
    """A step of the larger factor moves the product as far as the same step would move the dense matrix."""
    generator = torch.Generator().manual_seed(5)
    rows, columns = left[0] * right[0], left[1] * right[1]
    matrix = 0.1 * torch.randn(rows, columns, generator=generator)
    factors = [one.requires_grad_() for one in nearest_kronecker(matrix, left, right, terms=1)]
    larger, smaller = sorted(factors, key=lambda one: -one.numel())
    assert float(smaller.detach().square().mean()) == pytest.approx(1, abs=1e-4)
    incoming = torch.randn(rows, columns, generator=generator)
    (kronecker_sum(*factors) * incoming).sum().backward()
    assert larger.grad is not None
    # Each number of the larger factor gathers the gradients of as many numbers as the smaller one has.
    expected = smaller.numel() ** 0.5 * float(incoming.square().mean().sqrt())
    assert float(larger.grad.square().mean().sqrt()) == pytest.approx(expected, rel=0.15)
    before = kronecker_sum(*factors).detach()
    torch.optim.Adam([larger], lr=1e-3).step()
    moved = (kronecker_sum(*factors).detach() - before).square().mean().sqrt()
    assert float(moved) == pytest.approx(1e-3, rel=0.01)


def test_a_matrix_of_zeros_has_factors_that_can_learn() -> None:
    left, right = nearest_kronecker(torch.zeros(6, 8), (6, 4), (1, 2), terms=1)
    assert not left.any()
    assert float(right.square().mean()) == pytest.approx(1)


def test_order_of_products_is_the_cheaper_one() -> None:
    assert KroneckerSpec((768, 384), (1, 2), 1, bias=True).right_first
    assert not KroneckerSpec((384, 768), (2, 1), 1, bias=True).right_first


@pytest.mark.parametrize("terms", [1, 2])
def test_table_and_head_stand_for_one_matrix(terms: int) -> None:
    embedding = KroneckerEmbedding(EmbeddingSpec(11, 12, 3, terms))
    left, right = torch.randn(terms, 11, 4), torch.randn(terms, 3)
    embedding.set_factors(left, right)
    dense = sum(torch.kron(a, b[None]) for a, b in zip(left, right, strict=True))
    ids, states = torch.randint(11, (2, 5)), torch.randn(2, 5, 12)
    assert torch.allclose(embedding(ids), dense[ids], atol=1e-5)
    head = KroneckerHead(HeadSpec("table"), embedding)
    assert torch.allclose(head(states), states @ dense.T, atol=1e-5)
    assert not list(head.parameters())  # the head stores nothing of its own


def test_shapes_that_do_not_divide_are_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"layer 7.*5 does not divide 12; these do: 1, 2, 3, 4, 6, 12"):
        KroneckerSpec.with_right("layer 7", 12, 10, (5, 2))
    with pytest.raises(UsageError, match="Kronecker terms: the rank must be 1 to 2, found 3"):
        KroneckerSpec.with_right("layer 7", 12, 10, (1, 2), terms=3)
