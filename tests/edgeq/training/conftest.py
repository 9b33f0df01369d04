"""Small tasks that a small model learns in seconds."""

import numpy as np
import pytest
import torch
import transformers

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.models import adapter_for
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.training import ExampleSet, TaskData


@pytest.fixture(scope="session")
def classifier():
    """Returns a function that makes a small random classifier, the same for the same seed."""

    def make(seed=0, labels=2, layers=2, **changes):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 60, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 44}
        config = transformers.BertConfig(
            **sizes | changes, num_hidden_layers=layers, num_labels=labels, max_position_embeddings=24
        )
        return transformers.BertForSequenceClassification(config)

    return make


@pytest.fixture(scope="session")
def decoder():
    """Returns a function that makes a small random GPT-2."""

    def make(seed=0, layers=2, **changes):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 50, "n_embd": 24, "n_head": 2, "n_positions": 24, **changes}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers, **sizes))

    return make


def _examples(count, seed):
    """Sentences whose label is whether the token 7 is in them."""
    random = np.random.default_rng(seed)
    inputs = [random.integers(8, 60, random.integers(3, 9)).astype(np.int32) for _ in range(count)]
    labels = random.integers(0, 2, count)
    for ids, label in zip(inputs, labels, strict=True):
        if label:
            ids[random.integers(1, len(ids))] = 7
    return ExampleSet(inputs, 0, [np.zeros_like(ids) for ids in inputs], labels.astype(np.int64))


@pytest.fixture(scope="session")
def labelled():
    """A classification task of 90 examples and 40 held-out ones."""
    return TaskData("classification", _examples(90, 1), _examples(40, 2))


@pytest.fixture(scope="session")
def text():
    """A language modelling task: a pattern of tokens."""
    stream = np.tile(np.arange(3, 20, dtype=np.int32), 30)
    inputs = [stream[start : start + 12] for start in range(0, 408, 12)]
    labels = [stream[start + 1 : start + 13] for start in range(0, 408, 12)]
    train, held_out = ExampleSet(inputs[4:], 0, labels=labels[4:]), ExampleSet(inputs[:4], 0, labels=labels[:4])
    return TaskData("language-model", train, held_out)


@pytest.fixture(scope="session")
def losses():
    """Returns a function that makes an objective for two models."""

    def make(student, teacher=None, **weights):
        adapters = [None if model is None else adapter_for(model) for model in (student, teacher)]
        return Objective(ObjectiveSettings(**weights), student=adapters[0], teacher=adapters[1])

    return make


@pytest.fixture(scope="session")
def plans():
    """Returns a function that plans all layers of a model for quantized training with one method."""

    def make(model, *, method="module-scaling", bits=2):
        adapter = adapter_for(model)
        grid = grid_for(bits)
        tables = [
            LayerPlan(name, "embedding", None, keep_float_reason="positions")
            if name in adapter.float_names
            else LayerPlan(name, "embedding", grid, method=method)
            for name in adapter.embedding_names
        ]
        options = {"per_row": False, "activation": "dynamic", "method": method}
        return tables + [
            LayerPlan(name, "linear", grid, tied_to=adapter.tied_names.get(name), **options)
            for name in adapter.linear_names
        ]

    return make
