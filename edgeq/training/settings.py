"""How a student is trained: plain settings, checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from edgeq.errors import UsageError

TaskName = Literal[
    "classification",
    "regression",
    "ranking",
    "embedding",
    "language-model",
    "seq2seq",
    "tags",
    "answers",
    "masked-words",
]
ScheduleName = Literal["linear", "cosine", "constant"]
AcrossStages = Literal["restart", "continue"]
Shuffle = Literal["stage", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSettings:
    """One part of a training; the learning rate rises and falls within each, unless the training says otherwise.

    Attributes:
        name: Name of the stage, used in the log and for ``initialise_from``.
        share: Its part of the training's steps, in relation to the other stages.
        bits: For the callback that begins the stage: the bit width of the weights; None leaves it as it is.
        activations: For the callback: whether activations are quantized; None leaves it as it is.
        initialise_from: Earlier stage whose weights this one starts from; None is the one before, and
            ``"teacher"`` the weights the training began with, which are a teacher's.
        augmented: Whether the augmented examples are used beside the others.
        learning_rate: Peak of the learning rate; None is that of the training.
        schedule: How the rate falls after the warm-up; None is that of the training.
        warmup: Part of the stage's steps in which the rate rises; None is that of the training.
        pretraining_epochs: Passes over the texts to pre-train on, which this stage reads instead of the task's
            examples; its ``share`` counts nothing then. None is a stage on the task.
    """

    name: str = "train"
    share: float = 1.0
    bits: int | None = None
    activations: bool | None = None
    initialise_from: str | None = None
    augmented: bool = False
    learning_rate: float | None = None
    schedule: ScheduleName | None = None
    warmup: float | None = None
    pretraining_epochs: float | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name == "teacher" or not self.name.replace("-", "").isalnum():
            raise UsageError(
                f"stage name {self.name!r} should be made of letters, digits and hyphens, and not be 'teacher'"
            )
        _check_number(f"stage {self.name!r}: share", self.share, above=0.0)
        if self.learning_rate is not None:
            _check_number(f"stage {self.name!r}: learning_rate", self.learning_rate, above=0.0)
        if self.schedule is not None:
            _check_schedule(f"stage {self.name!r}: schedule", self.schedule)
        if self.warmup is not None:
            _check_number(f"stage {self.name!r}: warmup", self.warmup, least=0.0, most=1.0)
        if self.pretraining_epochs is not None:
            _check_number(f"stage {self.name!r}: pretraining_epochs", self.pretraining_epochs, above=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """A training.

    Attributes:
        epochs: Times that the training examples are seen; may be a fraction. Either this or ``steps``.
        steps: Steps of the optimizer.
        batch_size: Examples (or blocks of tokens) of one step, over all processes.
        accumulate: Pieces that a step's batch is cut into, one after the other, to save memory.
        learning_rate: Peak of the learning rate.
        quantizer_learning_rate: The same for parameters of quantizers, relative to the size of each, so that 0.01
            moves any of them by about a hundredth of itself in a step; they get no weight decay. None is
            ``learning_rate``.
        schedule: How the rate falls after the warm-up: ``linear`` or ``cosine`` to zero, or ``constant``.
        warmup: Part of a stage's steps in which the rate rises, 0..1.
        weight_decay: AdamW's, on matrices only.
        betas: AdamW's two averages.
        clip: Largest norm of the gradient; 0 does not clip.
        max_length: Tokens of an example or block; longer texts are cut.
        dropout: Whether the model's own dropout is active while it trains.
        bf16: Whether matmuls are computed in bfloat16, where the device does so by itself; elsewhere in float32.
        evaluate_every: Steps between evaluations; None is once an epoch. A stage's end is evaluated always.
        save_every: Steps between training checkpoints; None is as often as evaluations, and every ten minutes.
        log_every: Steps between lines of the log.
        seed: Decides the order of the examples, dropout and sampled negatives.
        select: Which weights a stage ends with: those of its ``best`` evaluation, or the ``last``.
        across_stages: Whether each stage on the task is a training of its own (``restart``), or they ``continue``: the
            rate rises and falls once over all of them, and the optimizer keeps its averages from one to the next.
        shuffle: Whether the examples are shuffled anew for each ``stage``, which then may meet again what the one
            before has seen while others wait, or once for the ``run``: stages go on in the order of the epoch.
        stages: The parts of the training.
    """

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 5e-5
    quantizer_learning_rate: float | None = None
    schedule: ScheduleName = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    max_length: int = 128
    dropout: bool = True
    bf16: bool = False
    evaluate_every: int | None = None
    save_every: int | None = None
    log_every: int = 50
    seed: int = 0
    select: Literal["best", "last"] = "best"
    across_stages: AcrossStages = "restart"
    shuffle: Shuffle = "stage"
    stages: tuple[StageSettings, ...] = dataclasses.field(default_factory=lambda: (StageSettings(),))

    def __post_init__(self) -> None:
        self._check_length()
        for name in ("batch_size", "accumulate", "max_length", "log_every", "evaluate_every", "save_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} should be a whole number of 1 or more, found {value!r}")
        if self.batch_size < self.accumulate:
            raise UsageError(
                f"a batch of {self.batch_size} cannot be cut into {self.accumulate} pieces; lower accumulate"
            )
        _check_number("learning_rate", self.learning_rate, above=0.0)
        if self.quantizer_learning_rate is not None:
            _check_number("quantizer_learning_rate", self.quantizer_learning_rate, above=0.0)
        for name in ("weight_decay", "clip"):
            _check_number(name, getattr(self, name), least=0.0)
        _check_number("warmup", self.warmup, least=0.0, most=1.0)
        for beta in self.betas:
            _check_number("betas", beta, least=0.0, most=0.9999999)
        _check_schedule("schedule", self.schedule)
        choices = {"select": ("best", "last"), "across_stages": ("restart", "continue"), "shuffle": ("stage", "run")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(f"{name} should be {' or '.join(known)}, found {getattr(self, name)!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed should be a whole number of 0..{(1 << 32) - 1}, found {self.seed!r}")
        self._check_stages()

    def _check_length(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UsageError("a training needs a number of epochs, or of steps, and not both")
        if self.epochs is not None:
            _check_number("epochs", self.epochs, above=0.0)
        elif not isinstance(self.steps, int) or self.steps < 1:
            raise UsageError(f"steps should be a whole number of 1 or more, found {self.steps!r}")

    def _check_stages(self) -> None:
        if all(stage.pretraining_epochs is not None for stage in self.stages):
            raise UsageError("a training needs one stage or more on the task's own data")
        seen = {"teacher"}
        for stage in self.stages:
            if stage.name in seen:
                raise UsageError(f"two stages are named {stage.name!r}; give each a name of its own")
            if stage.initialise_from is not None and stage.initialise_from not in seen:
                raise UsageError(
                    f"stage {stage.name!r} starts from {stage.initialise_from!r}, which is no earlier stage; "
                    f"earlier are {', '.join(sorted(seen))}"
                )
            seen.add(stage.name)
            own = stage.schedule is not None or stage.warmup is not None
            if self.across_stages == "continue" and own and stage.pretraining_epochs is None:
                raise UsageError(
                    f"stage {stage.name!r} has a schedule or warm-up of its own, but across_stages = 'continue' has "
                    "one for all stages; leave out one of the two"
                )

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON holds them."""
        values = dataclasses.asdict(self)
        values["betas"] = list(self.betas)
        values["stages"] = list(values["stages"])
        return values


def _check_schedule(name: str, value: str) -> None:
    if value not in ("linear", "cosine", "constant"):
        raise UsageError(f"{name} should be linear, cosine or constant, found {value!r}")


def _check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float = math.inf,
) -> None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if right and above is not None:
        right = value > above
    if right and least is not None:
        right = value >= least
    if not right or value > most:
        lower = f"above {above:g}" if above is not None else f"{least:g} or more"
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise UsageError(f"{name} should be {lower}{upper}, found {value!r}")
