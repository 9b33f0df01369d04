import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.rounding import quantize_dynamic, quantize_static, ulp_noise, with_noise

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


def _by_hand(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in numpy, one operation a line."""
    largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-30))
    inverse = np.float32(127) / largest
    q = np.clip(np.rint(x * inverse), -127, 127)
    return q, largest / np.float32(127)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=FINITE))
def test_dynamic_is_the_definition_to_the_last_bit(x: np.ndarray) -> None:
    q, scale = quantize_dynamic(torch.from_numpy(x))
    expected_q, expected_scale = _by_hand(x)
    np.testing.assert_array_equal(q.numpy(), expected_q)
    np.testing.assert_array_equal(scale.numpy(), expected_scale)


def test_the_inverse_is_multiplied_not_the_scale_divided() -> None:
    x = torch.tensor([[2.623225212097168, 1.8486508131027222]])
    q, scale = quantize_dynamic(x)
    assert q.tolist() == [[127, 90]]
    assert torch.round(x / scale).tolist() == [[127, 89]]


def test_ties_go_to_even_and_the_range_is_symmetric() -> None:
    q, scale = quantize_dynamic(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]]))
    assert q.tolist() == [[127, 0, 2, 2, 0, -2, -127]]
    assert scale.tolist() == [[1.0]]


def test_a_token_of_zeros_stays_zero() -> None:
    q, scale = quantize_dynamic(torch.zeros(1, 3))
    assert not q.any()
    assert torch.isfinite(scale).all()


def test_each_token_has_its_own_scale() -> None:
    x = torch.randn(2, 5, 16)
    q, scale = quantize_dynamic(x)
    assert scale.shape == (2, 5, 1)
    alone, alone_scale = quantize_dynamic(x[1, 3])
    assert torch.equal(q[1, 3], alone)
    assert torch.equal(scale[1, 3], alone_scale)


def test_static_clips_to_the_given_scale() -> None:
    q = quantize_static(torch.tensor([0.0, 0.25, 0.75, 100.0, -100.0]), torch.tensor([0.5]))
    assert q.tolist() == [0, 0, 2, 127, -127]


def test_noise_moves_by_at_most_one_ulp_and_is_repeatable() -> None:
    x = torch.randn(1000)
    assert with_noise(x) is x
    with ulp_noise(7):
        first, second = with_noise(x), with_noise(x)
    with ulp_noise(7):
        again = with_noise(x)
    with ulp_noise(8):
        other = with_noise(x)
    assert with_noise(x) is x
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    steps = (first.view(torch.int32) - x.view(torch.int32)).abs()
    assert set(steps.unique().tolist()) == {0, 1}


def test_noise_ends_when_its_block_raises() -> None:
    def fail() -> None:
        with ulp_noise(1):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    x = torch.randn(3)
    assert with_noise(x) is x
