"""The table ``[calibrate]`` of a recipe: what is done with texts without labels before layers are stored."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from edgeq.recipes.section import Section

MethodName = Literal["smooth", "error-feedback", "block-reconstruction", "distill"]
Count = Annotated[int, pydantic.Field(ge=1)]
Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]
Weight = Annotated[float, pydantic.Field(ge=0)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class SmoothSection(Section):
    """SmoothQuant's migration: large inputs become large weights of the same matmul.

    Attributes:
        strength: 0 moves nothing but what the weights ask for, 1 makes all channels of an input equally large.
        outliers: Only inputs whose largest channel exceeds the median one by this factor are changed.
        tokens: Most tokens that are read.
    """

    strength: Share = 0.5
    outliers: Annotated[float, pydantic.Field(ge=1)] = 6.0
    tokens: Count = 4096


class ErrorFeedbackSection(Section):
    """Closed-form codes and scales, layer by layer.

    Attributes:
        tokens: Most tokens that are read.
        damping: Added to the second moments of inputs, over the mean of their diagonal.
        target_damping: The same for the correction of what a layer should give; more of it trusts the texts less.
    """

    tokens: Count = 8192
    damping: Annotated[float, pydantic.Field(gt=0)] = 0.01
    target_damping: Annotated[float, pydantic.Field(gt=0)] = 0.1


class RatesSection(Section):
    """Largest learning rates of a short training.

    Attributes:
        weights: Of quantized weights, in steps between levels.
        scales: Of the logarithms of scales.
        others: Of biases and norms; of matrices that stay float in proportion to their root mean square.
    """

    weights: Rate
    scales: Rate
    others: Rate


class BlockReconstructionSection(Section):
    """Rounding and scales of one block at a time, trained against the float block's output.

    Attributes:
        tokens: Most tokens that are read.
        steps: Steps of the optimizer for each block.
        batch_tokens: Tokens of a step.
        rates: Learning rates.
    """

    tokens: Count = 16384
    steps: Count = 200
    batch_tokens: Count = 1024
    rates: RatesSection = RatesSection(weights=0.005, scales=0.001, others=0.0005)


class CalibrationDistillSection(Section):
    """A short training of the whole model against the float one, without labels.

    Attributes:
        steps: Steps of the optimizer.
        batch_tokens: Tokens of a step.
        rates: Learning rates.
        logits: Weight of the loss on what the model gives: logits, or sentence embeddings.
        similarities: Weight of the loss on similarities between the embeddings of a batch; of embedding models.
        hidden: Weight of the loss on hidden states.
        bf16: Multiply in bfloat16 where the processor does so by itself; weights and scales stay float32.
    """

    steps: Count = 200
    batch_tokens: Count = 1024
    rates: RatesSection = RatesSection(weights=0.01, scales=0.001, others=0.0005)
    logits: Weight = 1.0
    similarities: Weight = 0.0
    hidden: Weight = 0.1
    bf16: bool = False


class CalibrateSection(Section):
    """Calibration.

    Attributes:
        method: What is done, in this order; ``smooth`` comes first.
        max_length: Tokens of a text, or of a block of a language model; longer texts are cut.
        seed: Decides the order of the texts.
        smooth: Settings of ``smooth``.
        error_feedback: Settings of ``error-feedback``.
        block_reconstruction: Settings of ``block-reconstruction``.
        distill: Settings of ``distill``.
    """

    method: MethodName | tuple[MethodName, ...]
    max_length: Annotated[int, pydantic.Field(ge=2)] = 128
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    smooth: SmoothSection | None = None
    error_feedback: ErrorFeedbackSection | None = None
    block_reconstruction: BlockReconstructionSection | None = None
    distill: CalibrationDistillSection | None = None

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """The methods in their order."""
        return (self.method,) if isinstance(self.method, str) else self.method

    @pydantic.model_validator(mode="after")
    def _check(self) -> CalibrateSection:
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ValueError(f"name each method once, found {list(self.methods)}")
        if "smooth" in self.methods[1:]:
            raise ValueError("smooth changes the float weights, so it comes before the other methods")
        for name in ("smooth", "error_feedback", "block_reconstruction", "distill"):
            if getattr(self, name) is not None and name.replace("_", "-") not in self.methods:
                raise ValueError(f"[calibrate.{name}] is for the method {name.replace('_', '-')!r}, which is not named")
        return self
