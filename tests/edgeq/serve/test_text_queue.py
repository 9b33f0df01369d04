"""Requests whose texts run together: shares, order, and faults that stay with their request."""

import asyncio

import pytest

from edgeq.errors import UsageError
from edgeq.serve import text_queue
from edgeq.serve.limits import RefusedError
from edgeq.serve.text_queue import TextQueue


@pytest.fixture
def queue(monkeypatch):
    """A queue of eight tokens a round, with a list of the texts of every call."""
    monkeypatch.setattr(text_queue, "ROUND_TOKENS", 8)
    calls = []

    def run(key, texts):
        calls.append((key, list(texts)))
        if "bad" in texts:
            raise UsageError("bad")
        return [f"{key}-{text}" for text in texts]

    queue = TextQueue("test", run, waiting=100, on_round=lambda count: None)
    yield queue, calls
    queue.close()


def _submit(queue, *requests):
    async def all_at_once():
        jobs = (queue.submit(key, texts, [2] * len(texts)) for key, texts in requests)
        return await asyncio.gather(*jobs, return_exceptions=True)

    return asyncio.run(all_at_once())


def test_each_request_gets_its_results_in_order(queue):
    texts, calls = [[f"{n}{i}" for i in range(size)] for n, size in enumerate((1, 9, 2, 3))], queue[1]
    found = _submit(queue[0], *(("a", part) for part in texts[:3]), ("b", texts[3]))
    assert found == [[f"a-{text}" for text in part] for part in texts[:3]] + [[f"b-{text}" for text in texts[3]]]
    assert all(len(part) <= 4 for _, part in calls)
    assert all(len({text[0] for text in part}) == 1 for key, part in calls if key == "b")


def test_a_large_request_lets_others_take_turns(queue):
    large = [f"l{i}" for i in range(40)]
    found = _submit(queue[0], ("a", large), ("a", ["small"]))
    assert found == [[f"a-{text}" for text in large], ["a-small"]]
    at = next(number for number, (_, part) in enumerate(queue[1]) if "small" in part)
    assert at < 4


def test_a_fault_stays_with_its_request(queue):
    first, second, third = _submit(queue[0], ("a", ["x", "y"]), ("a", ["bad"]), ("a", ["z"]))
    assert (first, third) == (["a-x", "a-y"], ["a-z"])
    assert isinstance(second, UsageError)
    assert queue[0].waiting == 0
    (rest,) = _submit(queue[0], ("a", ["bad", *"abcdefgh"]))
    assert isinstance(rest, UsageError)
    assert queue[0].waiting == 0


def test_a_queue_that_is_closed_or_full_refuses(queue):
    assert isinstance(_submit(queue[0], ("a", ["x"] * 101))[0], RefusedError)
    queue[0].close()
    assert "stopping" in str(_submit(queue[0], ("a", ["x"]))[0])
