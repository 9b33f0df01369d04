from hypothesis import given
from hypothesis import strategies as st

from edgeq.targets.runtime.text_batches import BATCHES_OF_WINDOW, windows

TEXTS = st.lists(st.text(max_size=40) | st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=80)


@given(TEXTS, st.integers(1, 9))
def test_windows_hold_every_text_once_and_in_order(texts, budget):
    found = list(windows(iter(texts), token_budget=budget))
    assert [text for window in found for text in window] == texts
    # A text counts at least two tokens, the special ones.
    assert all(len(window) <= BATCHES_OF_WINDOW * budget for window in found)
