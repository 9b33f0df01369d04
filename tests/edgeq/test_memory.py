"""Memory is given back when there is some, and a process that has not grown is left alone."""

import gc
import weakref

import numpy as np
import pytest

from edgeq import memory


class Model:
    """A cycle that holds memory."""

    def __init__(self, size):
        self.own, self.weights = self, np.ones(size, np.uint8)


@pytest.fixture(autouse=True)
def only_when_asked():
    gc.disable()
    yield
    gc.enable()


def test_a_model_that_is_not_used_any_more_is_freed(monkeypatch):
    monkeypatch.setattr(memory, "_kept", memory.held() + memory._WORTHWHILE)
    memory.give_back()  # nothing to do, and the process has become smaller since
    assert memory._kept <= memory.held()
    model = Model(memory._WORTHWHILE + (8 << 20))
    seen = weakref.ref(model)
    del model
    memory.give_back()
    assert seen() is None


def test_a_process_that_has_not_grown_is_not_searched(monkeypatch):
    monkeypatch.setattr(memory, "_kept", memory.held())
    model = Model(1000)
    seen = weakref.ref(model)
    del model
    memory.give_back()
    assert seen() is not None
    monkeypatch.setattr(memory, "held", lambda: None)  # a system that does not say
    memory.give_back()
    assert seen() is None


def test_what_was_in_use_the_last_time_is_freed_once_it_is_let_go_of(monkeypatch):
    before = memory.held()
    model = Model(memory._WORTHWHILE + (8 << 20))
    monkeypatch.setattr(memory, "_kept", memory.held())
    seen = weakref.ref(model)
    del model
    memory.give_back()
    assert seen() is not None  # no growth since the last time
    memory.give_back(since=before)
    assert seen() is None
