"""The loss between the neighbourhoods of embeddings."""

import pytest
import torch
import transformers

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.distill.similarities import similarity_loss
from edgeq.errors import UsageError
from edgeq.models import adapter_for


def test_turning_and_scaling_all_embeddings_costs_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(6, 5, generator=generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    assert float(similarity_loss(3 * teacher @ rotation, teacher)) < 1e-12


def test_it_is_the_mean_squared_difference_of_cosines() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    loss = similarity_loss(student, teacher)
    torch.testing.assert_close(loss, torch.tensor(2 * 0.5 / 4))
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_only_embedding_models_have_it() -> None:
    adapter = adapter_for(transformers.BertConfig(num_hidden_layers=1, architectures=["BertForSequenceClassification"]))
    with pytest.raises(UsageError, match="similarities"):
        Objective(ObjectiveSettings(similarities=1.0), student=adapter, teacher=adapter)
