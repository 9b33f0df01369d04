"""What a student is trained for: a weighted sum of losses, as plain settings say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch

from edgeq.distill.attention import probability_loss, score_loss
from edgeq.distill.contrastive import ContrastiveLoss
from edgeq.distill.features import Batch, Features, StackFeatures, Wanted
from edgeq.distill.hidden import hidden_loss
from edgeq.distill.labels import NO_LABEL, classification_loss, regression_loss, relevance_loss
from edgeq.distill.layer_map import LayerMap, layer_map
from edgeq.distill.logits import MeanOver, soft_cross_entropy, squared_difference
from edgeq.distill.sentence import embedding_loss
from edgeq.distill.similarities import similarity_loss
from edgeq.distill.token_scaled import token_scaled_loss
from edgeq.errors import UsageError
from edgeq.formats.tasks import EVERY_TOKEN, TASKS
from edgeq.models import LayerStack, ModelAdapter


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Weights of the losses, and what belongs to each; a weight of 0 leaves a loss out.

    Attributes:
        logits: Of the soft cross-entropy with the teacher (squared difference for regression, cosine for
            sentence embeddings).
        temperature: Of that cross-entropy.
        mean_over: Whether it is averaged over examples, or over all elements of the logits.
        token_scaled: Whether tokens are weighed by the teacher's own loss (TSLD); language models only.
        labels: Of the task's own loss.
        similarities: Of that on cosines between the embeddings of a batch; embedding models only.
        hidden: Of each pair of hidden states.
        embeddings: Of hidden state 0, the embeddings' output; None is ``hidden``.
        attention: Of each pair of attention maps.
        attention_as: Compare ``scores`` or ``probabilities``.
        match: Compare hidden states and attention of ``all`` layers, or of the ``last`` one.
        contrastive: Of the contrastive loss on the last hidden states (of the decoder).
        contrastive_temperature: Its tau.
        contrastive_momentum: Its bank's momentum; 0 is without a bank.
        contrastive_negatives: Tokens that each one is compared with; None is all of its sequence.
    """

    logits: float = 1.0
    temperature: float = 1.0
    mean_over: MeanOver = "examples"
    token_scaled: bool = False
    labels: float = 0.0
    similarities: float = 0.0
    hidden: float = 0.0
    embeddings: float | None = None
    attention: float = 0.0
    attention_as: Literal["scores", "probabilities"] = "scores"
    match: Literal["all", "last"] = "all"
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    contrastive_momentum: float = 0.0
    contrastive_negatives: int | None = None

    def __post_init__(self) -> None:
        for name, value in self._weights().items():
            if not 0 <= value < float("inf"):
                raise UsageError(f"the weight of the loss {name!r} should be 0 or more, found {value!r}")
        if not any(self._weights().values()):
            raise UsageError("all losses have weight 0; set at least one weight above 0")
        for name in ("temperature", "contrastive_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} should be above 0, found {getattr(self, name)!r}")
        if not 0 <= self.contrastive_momentum < 1:
            raise UsageError(
                f"contrastive_momentum should be 0 or more and below 1, found {self.contrastive_momentum!r}"
            )
        if self.contrastive_negatives is not None and self.contrastive_negatives < 1:
            raise UsageError(
                f"contrastive_negatives should be 1 or more, found {self.contrastive_negatives!r}"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss compares with a teacher."""
        return any(value for name, value in self._weights().items() if name != "labels")

    def _weights(self) -> dict[str, float]:
        names = ("logits", "labels", "similarities", "hidden", "attention", "contrastive")
        weights = {name: getattr(self, name) for name in names}
        return weights if self.embeddings is None else {**weights, "embeddings": self.embeddings}


@dataclasses.dataclass
class Losses:
    """The losses of a batch.

    Attributes:
        total: Their weighted sum, a float32 scalar with its gradient.
        parts: Each loss by name, without its weight and gradient.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


class Objective:
    """Computes the losses of a batch.

    Args:
        settings: Their weights.
        student: Adapter of the student.
        teacher: Adapter of the teacher; None without one.
        kept: For each stack by name, the teacher's layer of each of the student's; a stack left out is mapped
            as :func:`layer_map` does by itself.

    Raises:
        UsageError: If a loss needs a teacher and there is none, or student and teacher do not match.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        *,
        student: ModelAdapter,
        teacher: ModelAdapter | None,
        kept: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.settings = settings
        self._student = student
        self._check_losses()
        self._maps: dict[str, LayerMap] = {}
        if settings.needs_teacher:
            if teacher is None:
                raise UsageError("distillation needs a teacher; give one, or train on labels alone")
            self._maps = _matched(settings, student, teacher, kept or {})
        self.contrastive = ContrastiveLoss(
            temperature=settings.contrastive_temperature,
            momentum=settings.contrastive_momentum,
            negatives=settings.contrastive_negatives,
        )

    @property
    def student_wants(self) -> Wanted:
        """What is to be read from the student."""
        return self._wants(0)

    @property
    def teacher_wants(self) -> Wanted:
        """What is to be read from the teacher."""
        return self._wants(1)

    def __call__(self, batch: Batch, student: Features, teacher: Features | None) -> Losses:
        """Computes the losses of a batch.

        Args:
            batch: What both have read, with ``labels`` and ``example`` where a loss needs them.
            student: What the student computed.
            teacher: What the teacher computed; None where no loss needs it.
        """
        settings = self.settings
        weighted: list[tuple[str, float, torch.Tensor]] = []
        if settings.labels:
            weighted.append(("labels", settings.labels, self._label_loss(batch, student)))
        if teacher is not None:
            if settings.logits:
                loss = self._logit_loss(batch, student, teacher)
                weighted.append(("logits", settings.logits, loss))
            if settings.similarities:
                loss = similarity_loss(student.output, teacher.output)
                weighted.append(("similarities", settings.similarities, loss))
            weighted += self._layer_losses(student, teacher)
            if settings.contrastive:
                loss = self._contrastive_loss(batch, student, teacher)
                weighted.append(("contrastive", settings.contrastive, loss))
        total = torch.stack([weight * loss for _, weight, loss in weighted]).sum()
        return Losses(total, {name: loss.detach() for name, _, loss in weighted})

    def _check_losses(self) -> None:
        settings, task = self.settings, self._student.task
        if settings.token_scaled and not TASKS[task].generates:
            raise UsageError("token_scaled weighs tokens of a language model; switch it off for this task")
        if settings.similarities and task != "embed":
            raise UsageError("similarities are between sentence embeddings; give the loss 'similarities' weight 0")
        if settings.labels and task == "embed":
            raise UsageError(
                "an embedding model has no loss on labels of its own; give the loss 'labels' weight 0"
            )

    def _wants(self, side: int) -> Wanted:
        settings = self.settings
        hidden: dict[str, tuple[int, ...]] = {}
        attention: dict[str, tuple[int, ...]] = {}
        for name, mapped in self._maps.items():
            indices = {pair[side] for pair in self._hidden_pairs(mapped)}
            if settings.contrastive and name == self._last_stack.name:
                indices.add(mapped.hidden[-1][side])
            hidden[name] = tuple(sorted(indices))
            attention[name] = tuple(pair[side] for pair in self._block_pairs(mapped))
        return Wanted(hidden, attention)

    @property
    def _last_stack(self) -> LayerStack:
        return self._student.stacks[-1]

    def _hidden_pairs(self, mapped: LayerMap) -> tuple[tuple[int, int], ...]:
        """Pairs of hidden states that a loss with a weight compares."""
        first = self.settings.hidden if self.settings.embeddings is None else self.settings.embeddings
        if self.settings.match == "last":
            return mapped.hidden[-1:] if self.settings.hidden else ()
        others = mapped.hidden[1:] if self.settings.hidden else ()
        return (*(mapped.hidden[:1] if first else ()), *others)

    def _block_pairs(self, mapped: LayerMap) -> tuple[tuple[int, int], ...]:
        if not self.settings.attention:
            return ()
        return mapped.blocks[-1:] if self.settings.match == "last" else mapped.blocks

    def _label_loss(self, batch: Batch, student: Features) -> torch.Tensor:
        if self._student.task == "classify" and student.output.shape[-1] == 1:
            loss = relevance_loss if "query" in batch else regression_loss
            return loss(student.output, batch["labels"])
        return classification_loss(student.output, batch["labels"])

    def _logit_loss(self, batch: Batch, student: Features, teacher: Features) -> torch.Tensor:
        settings, own, wanted = self.settings, student.output, teacher.output
        if self._student.task == "embed":
            return embedding_loss(own, wanted)
        if self._student.task == "classify" and own.shape[-1] == 1:
            return squared_difference(own, wanted)
        if settings.token_scaled:
            return token_scaled_loss(own, wanted, batch["labels"], temperature=settings.temperature)
        return soft_cross_entropy(
            own, wanted, temperature=settings.temperature, mask=self._counted(batch), mean_over=settings.mean_over
        )

    def _counted(self, batch: Batch) -> torch.Tensor | None:
        """The places whose logits count: those with a label, or all tokens of texts without any; None is all."""
        if TASKS[self._student.task].outputs.get("logits") != EVERY_TOKEN:
            return None
        return batch["labels"] != NO_LABEL if "labels" in batch else batch["attention_mask"].bool()

    def _layer_losses(self, student: Features, teacher: Features) -> list[tuple[str, float, torch.Tensor]]:
        """Sums over the pairs of layers, as the papers do."""
        settings = self.settings
        sums: dict[str, list[torch.Tensor]] = {"embeddings": [], "hidden": [], "attention": []}
        for name, mapped in self._maps.items():
            own, wanted = student.stacks[name], teacher.stacks[name]
            for pair in self._hidden_pairs(mapped):
                kind = "embeddings" if pair[0] == 0 and settings.embeddings is not None else "hidden"
                sums[kind].append(hidden_loss(own.hidden[pair[0]], wanted.hidden[pair[1]], own.mask))
            for pair in self._block_pairs(mapped):
                sums["attention"] += self._attention_losses(own, wanted, pair)
        weights = {
            "embeddings": settings.embeddings or 0.0,
            "hidden": settings.hidden,
            "attention": settings.attention,
        }
        return [(kind, weights[kind], torch.stack(losses).sum()) for kind, losses in sums.items() if losses]

    def _attention_losses(
        self, own: StackFeatures, wanted: StackFeatures, pair: tuple[int, int]
    ) -> list[torch.Tensor]:
        loss = score_loss if self.settings.attention_as == "scores" else probability_loss
        scores, targets = own.scores[pair[0]], wanted.scores[pair[1]]
        return [loss(scores[name], targets[name], own.pairs[name]) for name in scores]

    def _contrastive_loss(self, batch: Batch, student: Features, teacher: Features) -> torch.Tensor:
        name = self._last_stack.name
        own, wanted = self._maps[name].hidden[-1]
        features = student.stacks[name]
        return self.contrastive(
            features.hidden[own], teacher.stacks[name].hidden[wanted], features.mask, batch["example"]
        )


def _matched(
    settings: ObjectiveSettings,
    student: ModelAdapter,
    teacher: ModelAdapter,
    kept: Mapping[str, tuple[int, ...]],
) -> dict[str, LayerMap]:
    """Checks that losses between the two models have a meaning, and maps their layers where one needs it."""
    check_match(student, teacher)
    names = [stack.name for stack in student.stacks]
    if unknown := sorted(set(kept) - set(names)):
        raise UsageError(f"layers of {unknown[0]!r} were named, but the model has {' and '.join(names)}")
    if not (settings.hidden or settings.embeddings or settings.attention or settings.contrastive):
        return {}
    maps = {}
    for own, wanted in zip(student.stacks, teacher.stacks, strict=True):
        if own.width != wanted.width:
            raise UsageError(
                f"the student's {own.name} is {own.width} wide and the teacher's {wanted.width}; "
                "their hidden states cannot be compared, give the losses on them weight 0"
            )
        if settings.attention and not own.attentions:
            raise UsageError(
                f"{student.architecture} {student.unread_because}, so that its attention cannot be compared; give the "
                "loss 'attention' weight 0"
            )
        heads = [[tap.heads for tap in stack.attentions] for stack in (own, wanted)]
        if settings.attention and heads[0] != heads[1]:
            raise UsageError(
                f"the student's {own.name} has {heads[0][0]} attention heads and the teacher's {heads[1][0]}; "
                "give the loss 'attention' weight 0"
            )
        maps[own.name] = layer_map(student=own.depth, teacher=wanted.depth, kept=kept.get(own.name))
    return maps


def check_match(student: ModelAdapter, teacher: ModelAdapter) -> None:
    """Checks that a teacher's output means the same as the student's.

    Raises:
        UsageError: If they are models of different kinds, labels or vocabularies.
    """
    if student.architecture != teacher.architecture:
        raise UsageError(
            f"the student is a {student.architecture} and the teacher a {teacher.architecture}; "
            "give a teacher of the same architecture"
        )
    if student.labels != teacher.labels:
        raise UsageError(
            f"the student's labels are {', '.join(student.labels)} and the teacher's "
            f"{', '.join(teacher.labels)}; give a teacher of the same task"
        )
    sizes = [adapter.config.vocab_size for adapter in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"the student has a vocabulary of {sizes[0]} and the teacher one of {sizes[1]}; "
            "give a teacher with the same tokenizer"
        )
