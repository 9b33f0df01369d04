from hypothesis import given
from hypothesis import strategies as st

from edgeq.targets.runtime.text_batches import group_by_length


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_groups_hold_every_text_once_within_the_budget(lengths, budget):
    groups = group_by_length(lengths, token_budget=budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= budget
    in_order = [lengths[index] for group in groups for index in group]
    assert in_order == sorted(lengths, reverse=True)


def test_texts_of_about_the_same_length_share_a_group():
    assert group_by_length([2, 9, 3, 8, 2, 50], token_budget=20) == [[5], [1, 3], [2, 0, 4]]
