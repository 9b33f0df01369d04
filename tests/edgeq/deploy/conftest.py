"""What the tests of the task stages share."""

import gc
import weakref

import pytest

from edgeq.checkpoint import load_checkpoint


@pytest.fixture
def alive_at_loads(monkeypatch):
    """A function that watches a module and returns a list: how many models were alive each time it loaded one."""

    def watch(module):
        models, alive = [], []

        def load(*arguments, **options):
            gc.collect()
            alive.append(sum(model() is not None for model in models))
            loaded = load_checkpoint(*arguments, **options)
            models.append(weakref.ref(loaded.model))
            return loaded

        monkeypatch.setattr(module, "load_checkpoint", load)
        return alive

    return watch
