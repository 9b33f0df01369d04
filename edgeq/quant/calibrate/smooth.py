"""``smooth``: moves large inputs of a layer into its weights, where the float model stays exactly what it was.

SmoothQuant (Xiao et al., 2023, eq. 4): channel ``j`` of a layer's input is divided by
``s_j = max|x_j|^a / max|w_j|^(1 - a)`` and column ``j`` of its weights multiplied by it. The division is not computed:
it goes into the norm or the linear layer that makes the input, which is exact where nothing else reads that output.
Between two linear layers this is the equalization of Nagel et al. (Data-Free Quantization, 2019, section 4.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edgeq.models import Migration
from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.observe import inputs_of
from edgeq.quant.calibrate.state import Batch, CalibrationTexts, Run
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows

_BATCH = 4096  # tokens of a pass


@dataclasses.dataclass(frozen=True)
class Smooth:
    """Settings of the method.

    Attributes:
        strength: ``a``: 0 moves nothing that the weights do not ask for, 1 makes all channels equally large.
        outliers: Only inputs whose largest channel exceeds the median channel by this factor are changed.
        tokens: Most tokens that are read.
    """

    strength: float
    outliers: float
    tokens: int

    def apply(
        self,
        model: Any,
        migrations: Sequence[Migration],
        *,
        texts: CalibrationTexts,
        run: Run,
        seed: int = 0,
        progress: Progress = silent,
    ) -> list[str]:
        """Changes a float model in place; what it computes stays the same but for rounding.

        Args:
            model: The model.
            migrations: Where factors may move; those that touch a factorised layer are left out.
            texts: Calibration texts.
            run: Runs the model on a batch.
            seed: Gives the order of the texts.
            progress: Told before each of them.

        Returns:
            Names of the sources whose outputs were changed.
        """
        batches = list(texts.batches(_BATCH, seed=seed, most=self.tokens))
        changed = []
        for index, migration in enumerate(migrations):
            progress("smoothing inputs", index, len(migrations))
            if _possible(model, migration) and self._migrate(model, migration, batches, run):
                changed.append(migration.source)
        progress("smoothing inputs", len(migrations), len(migrations))
        return changed

    @torch.no_grad()
    def _migrate(self, model: Any, migration: Migration, batches: Sequence[Batch], run: Run) -> bool:
        inputs = torch.stack(
            [
                x.flatten(0, -2).abs().amax(dim=0)
                for batch in batches
                for x in inputs_of(model, run, batch, name=migration.readers[0], count=1)
            ]
        ).amax(dim=0)
        if float(inputs.amax()) <= self.outliers * float(inputs.median()):
            return False
        readers = [weight_rows(model.get_submodule(name)) for name in migration.readers]
        weights = torch.stack([rows.abs().amax(dim=0) for rows in readers]).amax(dim=0)
        usable = (inputs > 0) & (weights > 0)
        ones = torch.ones_like(inputs)
        factor = torch.where(usable, inputs, ones) ** self.strength
        factor = factor / torch.where(usable, weights, ones) ** (1 - self.strength)
        factor = torch.where(usable, factor, ones)
        for rows in readers:
            rows.mul_(factor)  # a view of the layer's own weights, whichever way round they lie
        _divide_outputs(model.get_submodule(migration.source), migration, factor)
        return True


def _possible(model: nn.Module, migration: Migration) -> bool:
    plain = (*FLOAT_CLASSES["linear"], nn.LayerNorm)
    names = (migration.source, *migration.readers)
    return all(isinstance(model.get_submodule(name), plain) for name in names)


def _divide_outputs(source: nn.Module, migration: Migration, factor: torch.Tensor) -> None:
    bias = source.get_parameter("bias") if getattr(source, "bias", None) is not None else None
    if isinstance(source, nn.LayerNorm):
        source.weight.div_(factor)
        if bias is not None:
            bias.div_(factor)
        return
    rows = weight_rows(source)
    size = rows.shape[0] // migration.parts
    part = slice(migration.part * size, (migration.part + 1) * size)
    rows[part].div_(factor[:, None])
    if bias is not None:
        bias[part].div_(factor)
