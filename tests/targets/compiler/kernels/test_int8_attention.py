"""Int8 attention against numpy, and the same bits on every instruction set, in any batch, whatever is hidden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.export.ops import OPERATORS
from edgeq.parity.reference import RecordedAttention
from edgeq.parity.rules.isolated_attention import allowed_attention
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.int8_attention import any_int8_attention, int8_attention
from edgeq.targets.compiler.kernels.numerics import instructions_of
from edgeq.targets.runtime.machine import this_machine

HIDDEN = np.float32(-1e38)
QUICK = ["x86-64-vnni", "x86-64-v3", "cortex-a76", "cortex-a72"]
OTHERS = ["x86-64-v4", "x86-64-avxvnni", "x86-64-v2"]
"""One for each integer matmul that a machine here may run; a kernel takes seconds to compile."""


@pytest.fixture(scope="module")
def kernel_for(compile_kernel):
    """Returns a function that gives the kernel for heads of any size, by target."""
    made = {}

    def kernel(name):
        if name not in made:
            isa = isa_named(load_target(name).isa)
            with instructions_of(isa):
                made[name] = compile_kernel(any_int8_attention(isa), name)
        return made[name]

    return kernel


@pytest.fixture(scope="module")
def kernels(kernel_for):
    """The kernels of :data:`QUICK` that this machine runs."""
    return {name: kernel_for(name) for name in QUICK if load_target(name).runs_on(this_machine())}


class Case:
    """Random queries, keys, values and a mask; the first key of each sequence is seen."""

    def __init__(self, *, batch, queries, keys, heads, head_size, hidden=0.3, size=1.0, seed=0):
        chance = np.random.default_rng(seed)
        self.heads, self.head_size = heads, head_size
        self.q = (chance.standard_normal((batch, queries, heads * head_size)) * size).astype(np.float32)
        self.k, self.v = chance.standard_normal((2, batch, keys, heads * head_size)).astype(np.float32)
        self.v *= np.exp2(chance.integers(-6, 3, (batch, keys, 1))).astype(np.float32)  # some tokens say little
        self.mask = np.where(chance.random((batch, 1, 1, keys)) < hidden, HIDDEN, 0).astype(np.float32)
        self.mask[..., :1] = 0

    @property
    def scale(self):
        return float(self.head_size**-0.5)

    def inputs(self):
        return self.q, self.k, self.v, self.mask

    def run(self, kernel):
        return kernel(*self.inputs(), np.full_like(self.q, np.nan), numbers=(self.heads, self.scale))

    def check(self, found):
        """Holds a result to what the parity rule allows."""
        limit = allowed_attention(RecordedAttention("", self.heads, self.inputs(), self.q))
        assert np.all(np.abs(found.astype(np.float64) - limit.exact) <= limit.bound)
        wanted = OPERATORS["Int8Attention"].reference(*self.inputs(), num_heads=self.heads, scale=self.scale)
        assert np.all(np.abs(wanted.astype(np.float64) - limit.exact) <= limit.bound)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 70),
    keys=st.integers(1, 70),
    heads=st.integers(1, 3),
    head_size=st.integers(8, 128),
    hidden=st.sampled_from([0.0, 0.5]),
    size=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 1 << 30),
)
def test_every_instruction_set_gives_the_same_bits_within_the_bound(kernels, **sizes):
    case = Case(**sizes)
    first, *others = [case.run(kernel) for kernel in kernels.values()]
    case.check(first)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_rarer_instruction_sets_give_the_same_bits(name, kernels, kernel_for):
    if not load_target(name).runs_on(this_machine()):
        pytest.skip(f"this machine does not run {name}")
    for seed, (queries, keys, head_size) in enumerate([(1, 1, 8), (7, 70, 37), (70, 33, 64), (19, 16, 128)]):
        case = Case(batch=2, queries=queries, keys=keys, heads=2, head_size=head_size, seed=seed)
        assert np.array_equal(case.run(kernel_for(name)), case.run(next(iter(kernels.values()))))


_MORE = [pytest.param(*size, marks=pytest.mark.slow) for size in ((1, 1), (2, 64))]


@pytest.mark.parametrize(("heads", "head_size"), [(3, 20), *_MORE])
def test_a_kernel_of_one_size_gives_the_bits_of_the_one_for_any(heads, head_size, kernels, compile_kernel):
    case = Case(batch=2, queries=19, keys=21, heads=heads, head_size=head_size)
    name, kernel = next(iter(kernels.items()))
    isa = isa_named(load_target(name).isa)
    with instructions_of(isa):
        fixed = compile_kernel(int8_attention(isa, heads, head_size, scale=case.scale), name)
    assert np.array_equal(fixed(*case.inputs(), np.full_like(case.q, np.nan)), case.run(kernel))


def test_what_is_hidden_and_what_else_is_in_the_batch_change_no_bit(kernels):
    chance = np.random.default_rng(3)
    kernel = next(iter(kernels.values()))
    case = Case(batch=1, queries=9, keys=9, heads=2, head_size=24, hidden=0.0)
    alone = case.run(kernel)
    for padding in (1, 7, 23):
        padded = Case(batch=2, queries=9 + padding, keys=9 + padding, heads=2, head_size=24, seed=padding)
        # Large values in what is hidden would take the scales, if these were not each token's own.
        for own, name in ((case.q, "q"), (case.k, "k"), (case.v, "v")):
            filler = 1e6 * chance.standard_normal((1, padding, 48)).astype(np.float32)
            getattr(padded, name)[0] = np.concatenate([own, filler], axis=1)
        padded.mask[0] = np.where(np.arange(9 + padding) < 9, 0, HIDDEN)
        assert np.array_equal(padded.run(kernel)[:1, :9], alone)
    holes = Case(batch=1, queries=9, keys=9, heads=2, head_size=24, hidden=0.0)
    holes.mask[..., [1, 4]] = HIDDEN
    fewer = Case(batch=1, queries=9, keys=9, heads=2, head_size=24, hidden=0.0)
    fewer.k, fewer.v = (np.delete(x, [1, 4], axis=1) for x in (fewer.k, fewer.v))
    fewer.mask = np.zeros((1, 1, 1, 7), np.float32)
    # Sums of powers have their parts by the number of a key, so that only their last bits may differ.
    assert np.allclose(holes.run(kernel), fewer.run(kernel), rtol=1e-6, atol=1e-6)


def test_a_row_without_any_token_gives_the_mean_of_the_values(kernels):
    case = Case(batch=1, queries=5, keys=5, heads=1, head_size=12)
    case.mask[:] = HIDDEN
    case.v[:] = np.where(case.v > 0, 1, -1)  # held exactly
    for kernel in kernels.values():
        assert np.allclose(case.run(kernel), np.repeat(case.v.mean(1, keepdims=True), 5, axis=1), atol=1e-6)


def test_rows_of_zeros_and_very_large_values_are_numbers(kernels):
    case = Case(batch=1, queries=4, keys=6, heads=2, head_size=16, hidden=0.0)
    case.q[0, 0], case.k[0, 1], case.v[0, 2] = 0, 0, 0
    case.q[0, 1], case.v[0, 3] = 1e15, 1e15
    for kernel in kernels.values():
        found = case.run(kernel)
        assert np.isfinite(found).all()
        case.check(found)
