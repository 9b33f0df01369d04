"""What a recipe file may say."""

from __future__ import annotations

import hashlib
import json
import math
from typing import ClassVar, Literal

import pydantic

from edgeq.recipes.calibrate_section import CalibrateSection
from edgeq.recipes.factor_section import FactorSection
from edgeq.recipes.section import Section, meaning
from edgeq.recipes.storage_sections import (
    ActivationSection,
    EmbeddingSection,
    OverrideSection,
    WeightSection,
)
from edgeq.recipes.training_sections import (
    AugmentSection,
    DistillSection,
    LayersSection,
    PretrainingSection,
    StageSection,
    TrainingSection,
)
from edgeq.recipes.vocabulary_section import VocabularySection

FamilyName = Literal["quantgpt", "xtc", "two-stage", "own"]
TEACHER = "teacher"
"""What ``initialise_from`` of a stage calls the weights that the training began with, which are the teacher's."""
PRETRAINING = "pretraining"
"""Name of the stage on texts without labels, which comes before all others."""


class Recipe(Section):
    """A way to compress a model.

    Attributes:
        name: Name of the recipe.
        summary: Its meaning in one line.
        family: The published method that it follows, whose rules it is held to; ``own`` for none.
        vocabulary: Tokens that stay; all if left out.
        layers: Blocks that the student keeps; all if left out.
        factor: Matrices that become products of smaller ones.
        weights: How linear layers are stored.
        activations: How their inputs are quantized.
        embeddings: How embedding tables are stored.
        override: Exceptions by layer name.
        calibrate: What is done with texts without labels; of recipes that do not train.
        distill: What is learnt from the teacher; of recipes that train.
        training: The run; a recipe without it does not train.
        pretraining: A stage on texts without labels before the others, if a user gives such texts.
        stage: Parts of the run with settings of their own.
        augment: Where more training sentences come from.
    """

    added_keys: ClassVar[frozenset[str]] = frozenset({"calibrate", "vocabulary"})

    name: str
    summary: str
    family: FamilyName = "own"
    vocabulary: VocabularySection | None = None
    layers: LayersSection | None = None
    factor: FactorSection | None = None
    weights: WeightSection
    activations: ActivationSection = ActivationSection()
    embeddings: EmbeddingSection
    override: tuple[OverrideSection, ...] = ()
    calibrate: CalibrateSection | None = None
    distill: DistillSection | None = None
    training: TrainingSection | None = None
    pretraining: PretrainingSection | None = None
    stage: tuple[StageSection, ...] = ()
    augment: AugmentSection | None = None

    @property
    def trains(self) -> bool:
        """Whether the recipe needs training data."""
        return self.training is not None

    @property
    def calibrates(self) -> bool:
        """Whether the recipe reads texts without labels."""
        return self.calibrate is not None

    @property
    def changes_shapes(self) -> bool:
        """Whether the compressed model has other matrices than the float one."""
        return any(section is not None for section in (self.vocabulary, self.layers, self.factor))

    @property
    def sha256(self) -> str:
        """Digest of what the recipe says; comments and the order of keys do not change it."""
        return hashlib.sha256(json.dumps(meaning(self), sort_keys=True).encode()).hexdigest()

    @pydantic.model_validator(mode="after")
    def _check_training(self) -> Recipe:
        if self.training is None:
            if self.weights.bits == 0 and self.factor is None and self.vocabulary is None:
                raise ValueError(
                    "weights have 1, 2, 4, 7, 8 bits, found 0, which is for recipes with [training], [factor] or "
                    "[vocabulary]"
                )
            for key in ("distill", "pretraining", "stage", "augment"):
                if getattr(self, key):
                    raise ValueError(f"[{key}] needs [training]")
            if self.layers is not None and (self.calibrate is None or "distill" not in self.calibrate.methods):
                raise ValueError("[layers] needs [training], or [calibrate] with the method 'distill'")
            if self.weights.quantizer or self.embeddings.quantizer or self.activations.quantizer:
                raise ValueError("a quantizer is learned or followed in training, which needs [training]")
            return self
        for key in ("weights", "embeddings"):
            section = getattr(self, key)
            if section.bits and section.quantizer is None:
                raise ValueError(f"{key}.quantizer is missing, which a recipe with [training] needs")
        return self

    @pydantic.model_validator(mode="after")
    def _check_seven_bits(self) -> Recipe:
        if self.training is None:
            return self
        widths = {"weights": self.weights.bits, "embeddings": self.embeddings.bits}
        widths |= {f"override {override.pattern!r}": override.bits or 0 for override in self.override}
        widths |= {f"stage {stage.name!r}": stage.bits or 0 for stage in self.stage}
        for name, bits in widths.items():
            if bits == 7:
                raise ValueError(f"{name} has 7 bits, which no quantizer of [training] has; use 8, or do not train")
        return self

    @pydantic.model_validator(mode="after")
    def _check_attention(self) -> Recipe:
        if self.activations.attention == "int8" and not self.weights.bits:
            raise ValueError('attention = "int8" is for low-bit weights, found weights.bits = 0')
        return self

    @pydantic.model_validator(mode="after")
    def _check_calibrate(self) -> Recipe:
        if self.calibrate is None:
            return self
        if self.training is not None:
            raise ValueError("[calibrate] is for recipes without [training], which learns from the same texts and more")
        if not self.weights.bits:
            raise ValueError("[calibrate] chooses low-bit weights, found weights.bits = 0")
        if "max" in (self.weights.search, self.embeddings.search):
            raise ValueError('search = "max" is for recipes without [calibrate], which chooses scales by itself')
        return self

    @pydantic.model_validator(mode="after")
    def _check_factor(self) -> Recipe:
        if self.factor is not None and self.weights.bits and self.factor.evaluate != "auto":
            raise ValueError("factor.evaluate is for float factors; packed ones are computed as they are stored")
        if self.factor is not None and self.factor.fold and not self.weights.bits:
            raise ValueError("factor.fold is for packed factors; float ones are folded when a model is loaded")
        return self

    @pydantic.model_validator(mode="after")
    def _check_stages(self) -> Recipe:
        earlier: set[str] = set()
        for stage in self.stage:
            if stage.name in (TEACHER, PRETRAINING, *earlier):
                raise ValueError(f"stage {stage.name!r} needs a name of its own")
            if stage.initialise_from not in (None, TEACHER, *earlier):
                known = ", ".join([TEACHER, *sorted(earlier)])
                raise ValueError(
                    f"stage {stage.name!r} should start from one of {known}, found {stage.initialise_from!r}"
                )
            if stage.augment and self.augment is None:
                raise ValueError(f"stage {stage.name!r} trains on augmented data, which needs [augment]")
            earlier.add(stage.name)
        if self.stage:
            total = sum(stage.share for stage in self.stage)
            if not math.isclose(total, 1.0, abs_tol=1e-6):
                raise ValueError(f"the shares of the stages should add up to 1, found {total:g}")
            last = self.stage[-1]
            if last.bits is not None or not last.activations:
                raise ValueError(f"the last stage, {last.name!r}, should have the recipe's own bits and activations")
        return self
