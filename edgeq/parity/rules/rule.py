"""What a parity rule is: a file beside this one that defines a subclass of :class:`Rule` is applied to every run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from edgeq.backends import Arrays
from edgeq.discovery import classes_of
from edgeq.results import Check


@dataclasses.dataclass(frozen=True)
class Part:
    """Outputs that are judged together.

    Attributes:
        arrays: Outputs by name, one mapping for each batch that a stage was run on.
        feeds: For each of them ``attention_mask``, which says which tokens of ``[batch, sequence, ...]`` count.
    """

    arrays: Sequence[Arrays]
    feeds: Sequence[Arrays]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model computed on everything that it was run on.

    Attributes:
        parts: What is judged by itself: what the model is for, under an empty name, and the states of an encoder that a
            decoder reads, under ``encoder``.
        texts: Of a model that is called once a text, what it is for, on texts alone; None if there are none.
        generates: Whether the model generates text: its outputs are ``logits`` ``[batch, new, vocabulary]``.
    """

    parts: Mapping[str, Part]
    texts: Part | None = None
    generates: bool = False

    @property
    def results(self) -> Part:
        """What the model is for."""
        return self.parts[""]


@dataclasses.dataclass(frozen=True)
class StageOutputs:
    """What a stage computed, beside the reference.

    Attributes:
        name: Its name, such as ``onnxruntime``.
        got: What it computed.
        want: The same of the reference.
        is_whole: Whether it was run on everything. A bundle under an emulator is run on the beginning alone.
    """

    name: str
    got: Outputs
    want: Outputs
    is_whole: bool


@dataclasses.dataclass(frozen=True)
class Again:
    """Outputs that must be those of another run of edgeq's own code.

    Attributes:
        how: How they were computed, such as ``1 thread``; empty for a bundle as a whole.
        got: Outputs by name, one mapping a batch.
        want: Those of the other run.
        against: What that run was.
    """

    how: str
    got: Sequence[Arrays]
    want: Sequence[Arrays]
    against: str


@dataclasses.dataclass(frozen=True)
class BundleOutputs:
    """What a bundle computed in all ways that must agree.

    Attributes:
        stage: Name of its stage.
        again: The ways.
        generated: Tokens that it generated greedily on its own, int64 ``[batch, new]`` for each batch; empty for a
            model that generates no text.
        reference: Those of the reference.
    """

    stage: str
    again: Sequence[Again]
    generated: Sequence[np.ndarray] = ()
    reference: Sequence[np.ndarray] = ()


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What an operator may return.

    Attributes:
        exact: The result without rounding, float64 ``[1, rows, N]``.
        bound: Largest error allowed, of the same shape.
        edges: Codes that lie within 4 ulp of a rounding edge.
        proven: Results so close to ``exact`` by ``bound`` that no other integer sum could give them.
    """

    exact: np.ndarray
    bound: np.ndarray
    edges: int
    proven: int


class Recorded(Protocol):
    """What the reference recorded of an operator."""

    @property
    def name(self) -> str:
        """Module name."""


class OperatorCase(Protocol):
    """An operator of the reference, and its input."""

    @property
    def layer(self) -> Recorded:
        """What the reference recorded of it."""


@dataclasses.dataclass(frozen=True)
class OperatorOutputs:
    """What a stage made of the operators of one graph, each on the input that the reference gave it.

    Attributes:
        stage: Name of the stage.
        cases: The operators.
        limits: What each may return.
        outputs: What each returned, float32 ``[1, rows, N]``.
    """

    stage: str
    cases: Sequence[OperatorCase]
    limits: Sequence[Allowed]
    outputs: Sequence[np.ndarray]


class Rule:
    """A demand on what stages compute; one object for each run.

    Each method is called where what it judges is at hand, and returns its checks. Most rules need one of them.

    Attributes:
        name: The rule's name.
        order: Rules of a lower number are applied first: the first breach of a run is where one looks.
        fewest_noise_runs: How many runs of the reference under noise the rule needs at least.

    Args:
        reference: What the reference computed without noise.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 1
    fewest_noise_runs: ClassVar[int] = 0

    def __init__(self, reference: Outputs) -> None:
        self.reference = reference

    @classmethod
    def is_for(cls, reference: Outputs) -> bool:
        """Tells whether the rule judges such a model."""
        del reference
        return True

    def watch(self, whole: StageOutputs, beginning: StageOutputs) -> Sequence[float]:
        """Is shown one run of the reference under noise, and keeps what it needs of it.

        The outputs of all runs would fill the memory.

        Args:
            whole: The run.
            beginning: What a bundle under an emulator is run on.

        Returns:
            How far each output that the rule judges by itself was moved. Small models are run until one stands out.
        """
        del whole, beginning
        return ()

    def of_operators(self, operators: OperatorOutputs) -> Sequence[Check]:
        """Judges operators alone."""
        del operators
        return ()

    def of_stage(self, stage: StageOutputs) -> Sequence[Check]:
        """Judges a stage end to end."""
        del stage
        return ()

    def of_bundle(self, bundle: BundleOutputs) -> Sequence[Check]:
        """Judges a bundle against itself and against the other bundles."""
        del bundle
        return ()


def rules_for(reference: Outputs) -> list[Rule]:
    """Makes the rules that judge a model, found in the files of this folder.

    Args:
        reference: What the reference computed without noise.
    """
    found = classes_of("edgeq.parity.rules", Rule, having="name").values()
    return [rule(reference) for rule in sorted(found, key=lambda rule: rule.order) if rule.is_for(reference)]
