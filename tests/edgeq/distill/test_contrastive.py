"""Contrastive distillation against the paper's formula, written out by hand."""

import math

import pytest
import torch

from edgeq.distill.contrastive import ContrastiveLoss


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def by_hand(student, teacher, mask, tau):
    total, count = 0.0, 0
    for row in range(len(student)):
        real = [place for place in range(student.shape[1]) if mask[row, place]]
        for place in real:
            scores = [math.exp(cosine(student[row, place], teacher[row, j]) / tau) for j in real]
            total -= math.log(math.exp(cosine(student[row, place], teacher[row, place]) / tau) / sum(scores))
            count += 1
    return total / count


@pytest.fixture
def features():
    torch.manual_seed(3)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    return torch.randn(2, 5, 7), torch.randn(2, 5, 7), mask


def test_without_bank_it_is_the_formula(features):
    student, teacher, mask = features
    loss = ContrastiveLoss(temperature=0.2)(student, teacher, mask, torch.tensor([0, 1]))
    assert float(loss) == pytest.approx(by_hand(student, teacher, mask, 0.2), rel=1e-4)


def test_the_bank_is_a_moving_average_of_each_token(features):
    student, teacher, mask = features
    loss = ContrastiveLoss(temperature=0.2, momentum=0.5)
    loss(student, teacher, mask, torch.tensor([4, 9]))  # the first time, a token is its own average
    later = torch.randn(2, 5, 7)
    found = loss(later.flip(0), teacher.flip(0), mask.flip(0), torch.tensor([9, 4]))
    averaged = 0.5 * student.half().float() + 0.5 * later
    assert float(found) == pytest.approx(by_hand(averaged, teacher, mask, 0.2), rel=1e-3)
    kept = loss.state()["9"]
    assert kept.shape == (3, 7)
    torch.testing.assert_close(kept.float(), averaged[1, :3], rtol=0, atol=2e-3)


def test_the_bank_survives_a_checkpoint(features):
    student, teacher, mask = features
    first, second = (ContrastiveLoss(momentum=0.7) for _ in range(2))
    first(student, teacher, mask, torch.tensor([0, 1]))
    second.load_state(first.state())
    results = [one(student + 1, teacher, mask, torch.tensor([0, 1])) for one in (first, second)]
    assert float(results[0]) == float(results[1])


def test_sampled_negatives_are_others_of_the_same_sequence():
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    compared = ContrastiveLoss(negatives=3)._compared(mask)
    assert compared[0].sum(dim=-1).tolist() == [4] * 9
    assert compared[1, :4].sum(dim=-1).tolist() == [4] * 4
    assert not compared[1, :4, 4:].any()
    assert compared.diagonal(dim1=1, dim2=2).all()


def test_gradient_reaches_the_student_with_the_share_of_the_present(features):
    student, teacher, mask = features
    loss = ContrastiveLoss(momentum=0.75)
    loss(student, teacher, mask, torch.tensor([0, 1]))
    leaf = student.clone().requires_grad_()
    loss(leaf, teacher, mask, torch.tensor([0, 1])).backward()
    assert bool((leaf.grad[0].abs().sum(dim=-1) > 0).all())
    assert float(leaf.grad[1, 3:].abs().sum()) == 0
    without = student.clone().requires_grad_()
    ContrastiveLoss()(without, teacher, mask, torch.tensor([0, 1])).backward()
    # The bank holds the same features up to float16, so that the average is the student itself.
    torch.testing.assert_close(leaf.grad, 0.25 * without.grad, rtol=0.05, atol=1e-3)


def test_one_token_alone_has_nothing_to_be_told_from():
    loss = ContrastiveLoss(negatives=5)(torch.randn(1, 1, 4), torch.randn(1, 1, 4), torch.ones(1, 1).bool(), [0])
    assert float(loss) == pytest.approx(0, abs=1e-6)
