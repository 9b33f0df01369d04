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

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.models import Migration
from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.observe import inputs_of
from edgeq.quant.calibrate.state import Batch, CalibrationTexts, Run
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows

_BATCH = 4096  # tokens of a pass
_LARGEST_CHANGE = 1e-3
"""Of the output's root mean square: ten thousand times what moving factors costs in float32."""


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

        Raises:
            UnsupportedError: If there is no place where factors may move.
            EdgeqError: If the model computes something else afterwards.
        """
        possible = [migration for migration in migrations if _possible(model, migration)]
        if not possible:
            raise UnsupportedError(
                f"smooth finds no norm or linear layer in {type(model).__name__} (after [factor]) whose output "
                "nothing but linear layers reads; take it out of the recipe's [calibrate]"
            )
        batches = list(texts.batches(_BATCH, seed=seed, most=self.tokens))
        before = _output(model, batches[0], run)
        changed = self._changed(model, possible, batches, run, progress)
        moved = float((_output(model, batches[0], run) - before).square().mean().sqrt())
        if not moved <= _LARGEST_CHANGE * float(before.square().mean().sqrt()):
            raise EdgeqError(
                f"smooth changed what {type(model).__name__} computes: its adapter names a migration that is not exact"
            )
        return changed

    def _changed(
        self, model: Any, migrations: Sequence[Migration], batches: Sequence[Batch], run: Run, progress: Progress
    ) -> list[str]:
        changed = []
        for index, migration in enumerate(migrations):
            progress("smoothing inputs", index, len(migrations))
            if self._migrate(model, migration, batches, run):
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


@torch.no_grad()
def _output(model: Any, batch: Batch, run: Run) -> torch.Tensor:
    output: torch.Tensor = run(model, batch)[0]
    return output


def _possible(model: nn.Module, migration: Migration) -> bool:
    """Whether the readers are plain layers, and dividing the source's parameters divides its output."""
    plain = FLOAT_CLASSES["linear"]
    source, *readers = (model.get_submodule(name) for name in (migration.source, *migration.readers))
    return all(isinstance(one, plain) for one in readers) and (isinstance(source, plain) or _is_scaling_norm(source))


@torch.no_grad()
def _is_scaling_norm(module: nn.Module) -> bool:
    """Tells a norm whose output is in proportion to its parameters; some families add one to the weight."""
    parameters = dict(module.named_parameters())
    if not set(parameters) <= {"weight", "bias"} or "weight" not in parameters or parameters["weight"].ndim != 1:
        return False
    x = torch.linspace(-1.0, 1.0, len(parameters["weight"]))[None]
    single = module(x)
    for parameter in parameters.values():
        parameter.mul_(2.0)
    double = module(x)
    for parameter in parameters.values():
        parameter.mul_(0.5)
    return torch.equal(double, 2.0 * single)  # powers of two cost no rounding


def _divide_outputs(source: nn.Module, migration: Migration, factor: torch.Tensor) -> None:
    bias = source.get_parameter("bias") if getattr(source, "bias", None) is not None else None
    if not isinstance(source, FLOAT_CLASSES["linear"]):
        source.get_parameter("weight").div_(factor)
        if bias is not None:
            bias.div_(factor)
        return
    rows = weight_rows(source)
    size = rows.shape[0] // migration.parts
    part = slice(migration.part * size, (migration.part + 1) * size)
    rows[part].div_(factor[:, None])
    if bias is not None:
        bias[part].div_(factor)
