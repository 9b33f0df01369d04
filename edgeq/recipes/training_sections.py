"""Tables of a recipe that trains: layers of the student, distillation, the run, its stages, more data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from edgeq.recipes.section import Section

Positive = Annotated[float, pydantic.Field(gt=0)]
Weight = Annotated[float, pydantic.Field(ge=0)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Count = Annotated[int, pydantic.Field(ge=1)]
Index = Annotated[int, pydantic.Field(ge=0)]


class LayersSection(Section):
    """Which blocks of the source the student keeps, counted from 0.

    Attributes:
        keep: Blocks of an encoder or a decoder alone; of the encoder of an encoder-decoder. ``even`` and ``odd``
            are every second one of each stack.
        keep_decoder: Blocks of the decoder of an encoder-decoder.
    """

    keep: tuple[Index, ...] | Literal["even", "odd"]
    keep_decoder: tuple[Index, ...] | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> LayersSection:
        for chosen in (self.keep, self.keep_decoder):
            if isinstance(chosen, tuple) and (not chosen or list(chosen) != sorted(set(chosen))):
                raise ValueError(f"the layers to keep are different and in rising order, found {list(chosen)}")
        return self


class ContrastiveSection(Section):
    """Token-level contrastive distillation (QuantGPT).

    Attributes:
        weight: Its share in the objective.
        temperature: Divides the similarities.
        momentum: Of the bank of student features; 0 compares the features of the sequence itself, without bank.
        negatives: Other tokens of the same sequence that each token is compared with.
    """

    weight: Weight
    temperature: Positive = 0.1
    momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    negatives: Count = 64


class DistillSection(Section):
    """What the student learns from its teacher; a weight of 0 leaves a loss out.

    Attributes:
        logits: Weight of the soft cross-entropy with the teacher's logits (mean squared error for regression).
        temperature: Of that cross-entropy.
        mean_over: Average it over ``examples`` (or tokens), or over all ``elements`` of the logits.
        token_scaled: Weigh tokens by the teacher's own loss on them (TSLD).
        labels: Weight of the task's own loss.
        hidden: Weight of the squared differences between hidden states.
        embeddings: Weight of that between the embeddings' outputs; that of ``hidden`` if left out.
        attention: Weight of the differences between attention maps.
        attention_as: Compare ``scores`` before the softmax, or ``probabilities`` (Kullback-Leibler).
        match: Compare hidden states and attention of ``all`` layers, or of the ``last`` one.
        contrastive: Contrastive loss between tokens.
    """

    logits: Weight = 1.0
    temperature: Positive = 1.0
    mean_over: Literal["examples", "elements"] = "examples"
    token_scaled: bool = False
    labels: Weight = 0.0
    hidden: Weight = 0.0
    embeddings: Weight | None = None
    attention: Weight = 0.0
    attention_as: Literal["scores", "probabilities"] = "scores"
    match: Literal["all", "last"] = "all"
    contrastive: ContrastiveSection | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> DistillSection:
        contrastive = self.contrastive is not None and self.contrastive.weight
        if not any((self.logits, self.labels, self.hidden, self.embeddings, self.attention, contrastive)):
            raise ValueError("at least one loss has a weight above 0")
        return self


class TrainingSection(Section):
    """One training run.

    Attributes:
        epochs: Passes over the training data, in all stages together.
        budgets: Other numbers of epochs by name, for ``--budget``.
        batch_size: Examples of a step.
        learning_rate: Largest rate of the weights.
        quantizer_learning_rate: Largest rate of what quantizers learn, relative to the size of each learned number;
            that of the weights if left out.
        schedule: How the rate falls after the warm-up.
        warmup: Share of the steps in which the rate rises.
        weight_decay: Of matrices; vectors and quantizers have none.
        clip: Largest norm of the gradient.
        max_length: Tokens of an example; longer ones are cut.
        dropout: Keep the model's dropout while it trains.
        bf16: Multiply in bfloat16 where the device does so by itself; weights and quantizers stay float32.
        evaluate_every: Steps between two evaluations; at the end of each epoch if left out.
        select: Which model a stage ends with: the ``best`` on the evaluation data, or the ``last``.
        across_stages: ``restart``: each stage warms up and cools down, with a new optimizer; ``continue``: the rate
            rises and falls once over all stages, and the optimizer keeps its averages.
        shuffle: Shuffle the examples for each ``stage``, or once for the ``run``, so that stages read on.
    """

    added_keys: ClassVar[frozenset[str]] = frozenset({"across_stages", "shuffle"})

    epochs: Positive
    budgets: dict[str, Positive] = pydantic.Field(default_factory=dict)
    batch_size: Count = 32
    learning_rate: Positive = 5e-5
    quantizer_learning_rate: Positive | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Share = 0.1
    weight_decay: Weight = 0.01
    clip: Positive = 1.0
    max_length: Count = 128
    dropout: bool = True
    bf16: bool = False
    evaluate_every: Count | None = None
    select: Literal["best", "last"] = "best"
    across_stages: Literal["restart", "continue"] = "restart"
    shuffle: Literal["stage", "run"] = "stage"


class StageSection(Section):
    """A part of the training with settings of its own; stages follow each other in the order of the file.

    Attributes:
        name: What logs and folders call it.
        bits: Bits of weights and tables in this stage, where the recipe's end has fewer; the recipe's if left out.
            Widths that the recipe's quantizer does not have are rounded by the plain one of the width.
        activations: Quantize the inputs of linear layers, as ``[activations]`` says.
        share: Share of the epochs of ``[training]``.
        initialise_from: Name of the earlier stage whose weights this one starts from, or ``teacher`` for
            those the training began with; the stage before it if left out.
        augment: Train on the augmented data of ``[augment]``.
        learning_rate: Instead of that of ``[training]``.
        schedule: The same.
        warmup: The same; the share of the stage's steps.
        distill: Instead of ``[distill]``.
    """

    added_keys: ClassVar[frozenset[str]] = frozenset({"schedule", "warmup"})

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    bits: int | None = None
    activations: bool = True
    share: Annotated[float, pydantic.Field(gt=0, le=1)]
    initialise_from: str | None = None
    augment: bool = False
    learning_rate: Positive | None = None
    schedule: Literal["linear", "cosine", "constant"] | None = None
    warmup: Share | None = None
    distill: DistillSection | None = None


class PretrainingSection(Section):
    """A first stage on texts without labels, which is done when such texts are given.

    Attributes:
        epochs: Passes over the texts.
        learning_rate: Instead of that of ``[training]``.
        distill: Instead of the first stage's losses without that on labels, which texts have for language models only.
    """

    epochs: Positive = 1.0
    learning_rate: Positive | None = None
    distill: DistillSection | None = None


class AugmentSection(Section):
    """More training sentences by replacing words (TinyBERT).

    Attributes:
        copies: New sentences for each one of the data.
        candidates: Words that may stand in the place of one.
        replace: Probability that a word is replaced.
        source: Where candidates come from: ``embeddings``, the nearest words in the teacher's embedding table, or
            ``masked-lm``, the predictions of a masked language model given with ``--augment-model``.
    """

    copies: Count = 30
    candidates: Count = 15
    replace: Share = 0.4
    source: Literal["embeddings", "masked-lm"] = "embeddings"
