"""Losses on hidden states and attention maps against formulas written out by hand."""

import math

import pytest
import torch

from edgeq.distill.attention import probability_loss, score_loss
from edgeq.distill.hidden import hidden_loss
from edgeq.distill.sentence import embedding_loss, pool_states


def test_hidden_loss_is_the_mean_over_real_tokens():
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    total = sum(float((student[b, t] - teacher[b, t]).square().mean()) for b, t in [(0, 0), (0, 1), (1, 0)])
    assert float(hidden_loss(student, teacher, mask)) == pytest.approx(total / 3, rel=1e-5)


def test_without_padding_hidden_loss_is_the_plain_mean():
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    expected = torch.nn.functional.mse_loss(student, teacher)
    torch.testing.assert_close(hidden_loss(student, teacher, torch.ones(2, 3, dtype=torch.bool)), expected)


def test_score_loss_ignores_what_the_mask_hides():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    pairs = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
    found = score_loss(student, teacher, pairs)
    changed = student.clone()
    changed[:, :, 0, 1:] = 1e9  # above the diagonal
    torch.testing.assert_close(score_loss(changed, teacher, pairs), found)
    total = sum(
        float((student[b, h, i, j] - teacher[b, h, i, j]) ** 2)
        for b in range(2) for h in range(3) for i in range(4) for j in range(i + 1)
    )  # fmt: skip
    assert float(found) == pytest.approx(total / (2 * 3 * 10), rel=1e-5)


def test_probability_loss_is_the_divergence_of_masked_softmaxes():
    student, teacher = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    pairs = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    total = 0.0
    for head in range(2):
        for query in range(3):
            wanted = [math.exp(v) for v in teacher[0, head, query, : query + 1].tolist()]
            found = [math.exp(v) for v in student[0, head, query, : query + 1].tolist()]
            for w, f in zip(wanted, found, strict=True):
                total += w / sum(wanted) * math.log((w / sum(wanted)) / (f / sum(found)))
    assert float(probability_loss(student, teacher, pairs)) == pytest.approx(total / 6, rel=1e-4)
    assert float(probability_loss(teacher, teacher, pairs)) == pytest.approx(0, abs=1e-6)


def test_rows_of_padding_leave_no_trace_in_the_gradient():
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    pairs = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    pairs[..., :2, :2] = True
    for loss in (score_loss, probability_loss):
        student.grad = None
        loss(student, torch.randn(1, 2, 3, 3), pairs).backward()
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad[..., 2, :].abs().sum() + student.grad[..., 2].abs().sum()) == 0


def test_pooling():
    states = torch.arange(12.0).reshape(1, 3, 4)
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pool_states(states, mask, "mean"), states[:, :2].mean(dim=1))
    torch.testing.assert_close(pool_states(states, mask, "cls"), states[:, 0])


def test_embedding_loss_looks_at_directions_alone():
    embeddings = torch.randn(3, 5)
    assert float(embedding_loss(7 * embeddings, embeddings)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_loss(-embeddings, embeddings)) == pytest.approx(2, abs=1e-6)
