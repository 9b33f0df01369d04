"""Losses on logits against formulas written out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeq.distill.labels import NO_LABEL, classification_loss, regression_loss
from edgeq.distill.logits import soft_cross_entropy, squared_difference
from edgeq.distill.token_scaled import token_scaled_loss


def by_hand(student, teacher, temperature):
    """Sum of -p_t log p_s over the classes of one place."""
    wanted = [math.exp(t / temperature) for t in teacher]
    found = [math.exp(s / temperature) for s in student]
    return -sum(w / sum(wanted) * math.log(f / sum(found)) for w, f in zip(wanted, found, strict=True))


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=7),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_soft_cross_entropy_is_the_formula(pairs, temperature):
    student, teacher = ([pair[side] for pair in pairs] for side in (0, 1))
    found = soft_cross_entropy(torch.tensor([student]), torch.tensor([teacher]), temperature=temperature)
    expected = temperature**2 * by_hand(student, teacher, temperature)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_gradient_is_the_difference_of_probabilities():
    student = torch.randn(3, 5, requires_grad=True)
    teacher = torch.randn(3, 5)
    soft_cross_entropy(student, teacher).backward()
    expected = (student.softmax(-1) - teacher.softmax(-1)) / 3
    torch.testing.assert_close(student.grad, expected.detach())


def test_no_gradient_reaches_the_teacher():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    (soft_cross_entropy(student, teacher) + squared_difference(student, teacher)).backward()
    assert teacher.grad is None


def test_mean_over_elements_divides_by_the_classes():
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    by_examples = soft_cross_entropy(student, teacher)
    by_elements = soft_cross_entropy(student, teacher, mean_over="elements")
    torch.testing.assert_close(by_elements, by_examples / 7)


def test_only_places_in_the_mask_count():
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    mask = torch.tensor([[True, False, True, False], [False, False, True, False]])
    found = soft_cross_entropy(student, teacher, mask=mask)
    torch.testing.assert_close(found, soft_cross_entropy(student[mask], teacher[mask]))
    assert float(soft_cross_entropy(student, teacher, mask=torch.zeros_like(mask))) == 0


def test_half_precision_logits_give_a_float32_loss():
    student, teacher = torch.randn(2, 3).bfloat16(), torch.randn(2, 3).bfloat16()
    assert soft_cross_entropy(student, teacher).dtype == torch.float32
    assert squared_difference(student, teacher).dtype == torch.float32


def test_label_losses():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert float(classification_loss(logits, torch.tensor([0, 0]))) == pytest.approx(expected, rel=1e-6)
    assert float(regression_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 5.0]))) == pytest.approx(2.5)


def test_token_labels_skip_what_has_none():
    logits, labels = torch.randn(2, 3, 6), torch.tensor([[1, NO_LABEL, 5], [NO_LABEL, NO_LABEL, 0]])
    kept = labels != NO_LABEL
    torch.testing.assert_close(classification_loss(logits, labels), classification_loss(logits[kept], labels[kept]))
    assert float(classification_loss(logits, torch.full_like(labels, NO_LABEL))) == 0


def test_token_scaled_weights_are_a_softmax_of_the_teachers_losses():
    student, teacher = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    labels = torch.tensor([[1, 2, NO_LABEL, 0], [5, NO_LABEL, NO_LABEL, NO_LABEL]])
    total = 0.0
    for row in range(2):
        places = [place for place in range(4) if labels[row, place] != NO_LABEL]
        own = [-float(teacher[row, p].log_softmax(-1)[labels[row, p]]) for p in places]
        weights = [math.exp(value / 10) / sum(math.exp(v / 10) for v in own) for value in own]
        losses = [by_hand(student[row, p].tolist(), teacher[row, p].tolist(), 1.0) for p in places]
        total += sum(w * loss for w, loss in zip(weights, losses, strict=True))
    assert float(token_scaled_loss(student, teacher, labels)) == pytest.approx(total / 2, rel=1e-4)


def test_token_scaled_rows_without_labels_do_not_count():
    student, teacher = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 6)
    labels = torch.tensor([[1, 2, 3], [NO_LABEL] * 3])
    loss = token_scaled_loss(student, teacher, labels)
    torch.testing.assert_close(loss, token_scaled_loss(student[:1], teacher[:1], labels[:1]))
    loss.backward()
    assert bool(torch.isfinite(student.grad).all())
