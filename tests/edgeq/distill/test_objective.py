"""The weighted sum of losses, and what it refuses."""

import pytest
import torch
import transformers

from edgeq.distill import FeatureReader, Objective, ObjectiveSettings
from edgeq.distill.attention import probability_loss, score_loss
from edgeq.distill.hidden import hidden_loss
from edgeq.distill.labels import classification_loss
from edgeq.distill.logits import soft_cross_entropy
from edgeq.errors import UsageError
from edgeq.models import adapter_for


def classifier(layers=2, labels=3, **changes):
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, **changes}
    config = transformers.BertConfig(
        num_hidden_layers=layers, num_labels=labels, max_position_embeddings=20, **sizes
    )
    return transformers.BertForSequenceClassification(config).eval()


def decoder(layers=2, **changes):
    sizes = {"vocab_size": 60, "n_embd": 24, "n_head": 2, "n_positions": 20, **changes}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers, **sizes)).eval()


def batch_for(model):
    ids = torch.randint(5, 50, (2, 6))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "example": torch.tensor([0, 1])}
    batch["attention_mask"][1, 4:] = 0
    language = isinstance(model, transformers.GPT2LMHeadModel)
    batch["labels"] = torch.where(batch["attention_mask"] > 0, ids, -100) if language else torch.tensor([2, 0])
    return batch


def features_of(objective, student, teacher, batch):
    readers = [
        FeatureReader(model, adapter_for(model), wanted=wanted)
        for model, wanted in ((student, objective.student_wants), (teacher, objective.teacher_wants))
    ]
    return [reader(batch) for reader in readers]


def objective_for(settings, student, teacher, **options):
    adapters = (adapter_for(student), None if teacher is None else adapter_for(teacher))
    return Objective(settings, student=adapters[0], teacher=adapters[1], **options)


def test_layer_losses_are_sums_over_the_pairs_of_a_shorter_student():
    student, teacher = classifier(2), classifier(4)
    settings = ObjectiveSettings(logits=0.5, hidden=2.0, attention=3.0, labels=0.25)
    objective = objective_for(settings, student, teacher)
    batch = batch_for(student)
    own, wanted = features_of(objective, student, teacher, batch)
    losses = objective(batch, own, wanted)
    s, t = own.stacks["encoder"], wanted.stacks["encoder"]
    hidden = sum(hidden_loss(s.hidden[a], t.hidden[b], s.mask) for a, b in [(0, 0), (1, 2), (2, 4)])
    maps = sum(score_loss(s.scores[a]["self"], t.scores[b]["self"], s.pairs["self"]) for a, b in [(0, 1), (1, 3)])
    torch.testing.assert_close(losses.parts["hidden"], hidden.detach())
    torch.testing.assert_close(losses.parts["attention"], maps.detach())
    expected = (
        0.5 * soft_cross_entropy(own.output, wanted.output) + 2 * hidden + 3 * maps
        + 0.25 * classification_loss(own.output, batch["labels"])
    )  # fmt: skip
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert student.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0
    assert teacher.bert.encoder.layer[0].attention.self.query.weight.grad is None


def test_embeddings_can_weigh_otherwise_than_the_other_hidden_states():
    student, teacher = decoder(), decoder()
    settings = ObjectiveSettings(logits=0, hidden=1.0, embeddings=5.0, attention=2.0, attention_as="probabilities")
    objective = objective_for(settings, student, teacher)
    batch = batch_for(student)
    own, wanted = features_of(objective, student, teacher, batch)
    losses = objective(batch, own, wanted)
    s, t = own.stacks["decoder"], wanted.stacks["decoder"]
    first = hidden_loss(s.hidden[0], t.hidden[0], s.mask)
    others = sum(hidden_loss(s.hidden[i], t.hidden[i], s.mask) for i in (1, 2))
    maps = sum(probability_loss(s.scores[i]["self"], t.scores[i]["self"], s.pairs["self"]) for i in (0, 1))
    assert set(losses.parts) == {"embeddings", "hidden", "attention"}
    torch.testing.assert_close(losses.total, 5 * first + others + 2 * maps)


def test_last_layer_alone():
    student, teacher = classifier(2), classifier(4)
    settings = ObjectiveSettings(logits=0, hidden=1.0, attention=1.0, match="last")
    objective = objective_for(settings, student, teacher)
    assert objective.student_wants.hidden == {"encoder": (2,)}
    assert objective.teacher_wants.hidden == {"encoder": (4,)}
    assert objective.teacher_wants.attention == {"encoder": (3,)}


def test_nothing_is_read_for_logits_alone():
    student, teacher = classifier(), classifier()
    objective = objective_for(ObjectiveSettings(), student, teacher)
    assert not objective.student_wants.hidden
    assert not objective.teacher_wants.attention


def test_contrastive_reads_the_last_hidden_state():
    student, teacher = decoder(), decoder()
    objective = objective_for(ObjectiveSettings(contrastive=0.1), student, teacher)
    assert objective.student_wants.hidden == {"decoder": (2,)}
    batch = batch_for(student)
    losses = objective(batch, *features_of(objective, student, teacher, batch))
    expected = losses.parts["logits"] + 0.1 * losses.parts["contrastive"]
    torch.testing.assert_close(losses.total.detach(), expected)


def test_regression_compares_values():
    student, teacher = classifier(labels=1), classifier(labels=1)
    objective = objective_for(ObjectiveSettings(logits=1, labels=1), student, teacher)
    batch = batch_for(student) | {"labels": torch.tensor([0.5, 2.0])}
    own, wanted = features_of(objective, student, teacher, batch)
    losses = objective(batch, own, wanted)
    expected = (own.output - wanted.output).square().mean()
    torch.testing.assert_close(losses.parts["logits"], expected.detach())
    expected = (own.output[:, 0] - batch["labels"]).square().mean()
    torch.testing.assert_close(losses.parts["labels"], expected.detach())


def test_named_layers():
    student, teacher = classifier(2), classifier(5)
    settings = ObjectiveSettings(hidden=1.0)
    objective = objective_for(settings, student, teacher, kept={"encoder": (0, 3)})
    assert objective.teacher_wants.hidden == {"encoder": (0, 1, 4)}
    for kept, words in (({"encoder": (0, 5)}, "layer 5 is unknown"), ({"decoder": (0, 1)}, "'decoder' were named")):
        with pytest.raises(UsageError, match=words):
            objective_for(settings, student, teacher, kept=kept)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "words"),
    [
        (classifier, decoder, {}, "is a BertForSequenceClassification and the teacher a GPT2LMHeadModel"),
        (classifier, lambda: classifier(labels=2), {}, "labels are LABEL_0, LABEL_1, LABEL_2 and the teacher's"),
        (classifier, lambda: classifier(vocab_size=51), {}, "vocabulary of 50 and the teacher one of 51"),
        (classifier, lambda: classifier(hidden_size=36), {"hidden": 1}, "24 wide and the teacher's 36"),
        (classifier, lambda: classifier(num_attention_heads=4), {"attention": 1}, "has 3 attention heads"),
        (classifier, lambda: None, {}, "needs a teacher"),
        (classifier, classifier, {"token_scaled": True}, "token_scaled weighs tokens of a language model"),
    ],
)
def test_models_and_losses_that_do_not_fit(student, teacher, settings, words):
    with pytest.raises(UsageError, match=words):
        objective_for(ObjectiveSettings(**settings), student(), teacher())


def test_narrow_teachers_do_for_logits():
    objective_for(ObjectiveSettings(), classifier(), classifier(hidden_size=36))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"logits": 0}, "all losses have weight 0"),
        ({"hidden": -1}, "'hidden' should be 0 or more"),
        ({"labels": float("nan")}, "'labels' should be 0 or more"),
        ({"temperature": 0}, "temperature should be above 0"),
        ({"contrastive_momentum": 1.0}, "below 1"),
        ({"contrastive_negatives": 0}, "1 or more"),
    ],
)
def test_settings_without_a_meaning(settings, words):
    with pytest.raises(UsageError, match=words):
        ObjectiveSettings(**settings)
