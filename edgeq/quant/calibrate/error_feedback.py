"""``error-feedback``: layer by layer in closed form; what rounding loses is made up for by what is not rounded yet.

GPTQ (Frantar et al., 2023) and LDLQ (Chee et al., QuIP, 2023), with the inputs that a layer really has once all layers
in front of it are quantized, their int8 rounding included, and the outputs of the float model as the target (Li et al.,
GPTAQ, 2025). The mean of what is left goes into the bias (Nagel et al., Data-Free Quantization, 2019, section 4.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.blocks import blocks_of, run_block
from edgeq.quant.calibrate.lattice import corrected_target, fit
from edgeq.quant.calibrate.observe import calls, groups, inputs_of
from edgeq.quant.calibrate.second_moments import SecondMoments
from edgeq.quant.calibrate.state import Batch, CalibrationState, grid_of, store
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.grids import Grid
from edgeq.quant.trainable_layers import TrainableEmbedding, TrainableLinear, quantized_input

_BATCH = 4096  # tokens of a pass
_ROWS = 8192  # rows of a vocabulary that are worked on at a time


@dataclasses.dataclass(frozen=True)
class ErrorFeedback:
    """Settings of the method.

    Attributes:
        tokens: Most tokens that are read.
        damping: Added to the second moments, over the mean of their diagonal.
        target_damping: The same for the correction of the target, which few texts should not bend far.
    """

    tokens: int
    damping: float = 0.01
    target_damping: float = 0.1

    def apply(self, state: CalibrationState, *, progress: Progress = silent) -> None:
        """Chooses codes, scales and biases of every quantized layer of ``state.model``."""
        batches = list(state.texts.batches(_BATCH, seed=state.seed, most=self.tokens))
        linears = state.linears()
        counts = calls(state.reference, state.run, batches[0], names=list(linears))
        work = _Work(self, linears, counts, progress)
        self._tables(state, batches)
        whole = _Place("", state.model, state.reference, state.run, batches, batches)
        # Factors that many layers share run in all blocks; they come first, so that all blocks see what they become.
        work.place(whole, [name for name, count in counts.items() if count > 1])
        for stack in state.stacks:
            for block in blocks_of(state, stack, batches):
                prefix = f"{block.name}."
                place = _Place(prefix, block.model, block.reference, run_block, block.calls, block.reference_calls)
                work.place(place, [name for name in linears if name.startswith(prefix) and counts.get(name) == 1])
        work.place(whole, list(linears))

    def _tables(self, state: CalibrationState, batches: Sequence[Batch]) -> None:
        """Chooses the codes of tables that are output heads as well; a look-up alone wants the nearest codes."""
        tables = state.tables()
        for head, table in state.heads().items():
            count = calls(state.reference, state.run, batches[0], names=[head])[head]
            layer: Any = state.model.get_submodule(head)
            moments = SecondMoments(tables[table].embedding_dim)
            for batch in batches:
                for x in inputs_of(state.reference, state.run, batch, name=head, count=count):
                    z = quantized_input(layer, x)
                    moments.add(z, z)
            square = metric_of_table(moments.centred(shift=False)[0])
            self._fit(tables[table], tables[table].weight.detach().float(), square)

    def moments(self, place: _Place, name: str, count: int) -> SecondMoments:
        """Sums over all that a layer reads."""
        layer: Any = place.model.get_submodule(name)
        moments = SecondMoments(layer.in_features)
        for batch, other in zip(place.batches, place.reference_batches, strict=True):
            wanted = inputs_of(place.reference, place.run, other, name=name, count=count)
            # What a shared factor reads depends on factors that come later: the float inputs are nearer.
            read = wanted if count > 1 else inputs_of(place.model, place.run, batch, name=name, count=count)
            for x, original in zip(read, wanted, strict=True):
                moments.add(quantized_input(layer, x), original)
        return moments

    @torch.no_grad()
    def linear(self, layer: TrainableLinear, weight: torch.Tensor, moments: SecondMoments) -> None:
        """Chooses codes, scales and bias of a layer whose float weights are ``weight`` (``[N, K]``)."""
        square, cross = moments.centred(shift=layer.bias is not None)
        target = corrected_target(weight, square, cross, damping=self.target_damping)
        self._fit(layer, target, square)
        if layer.bias is not None:
            wanted = weight.double() @ (moments.targets / moments.tokens)
            made = layer.decoded_weight().double() @ (moments.inputs / moments.tokens)
            layer.bias.add_((wanted - made).float())

    @torch.no_grad()
    def _fit(self, layer: TrainableLinear | TrainableEmbedding, target: torch.Tensor, square: torch.Tensor) -> None:
        levels, scale = self.levels(target, square, grid_of(layer), per_row=layer.plan.per_row)
        store(layer, target, levels=levels, scale=scale)

    def levels(
        self, target: torch.Tensor, square: torch.Tensor, grid: Grid, *, per_row: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds levels and scales, some thousand rows at a time; see :func:`~edgeq.quant.calibrate.lattice.fit`."""
        step = _ROWS if per_row else len(target)
        parts = [fit(part, square, grid, per_row=per_row, damping=self.damping) for part in target.split(step)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def metric_of_table(square: torch.Tensor) -> torch.Tensor:
    """Returns the metric of a table that is an output head too, out of the second moments of what the head reads.

    A look-up reads all columns alike, a head as its inputs say; both use the same codes.

    Args:
        square: float64, ``[K, K]``.
    """
    scaled = square / square.diagonal().mean().clamp(min=1e-30)
    return scaled + torch.eye(len(square), dtype=square.dtype)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A part of both models that runs alone: the whole, or one block.

    Attributes:
        prefix: What the names of its layers begin with.
        model: The part that is being calibrated.
        reference: The float part.
        run: Runs either on a batch.
        batches: Batches of the one.
        reference_batches: Batches of the other.
    """

    prefix: str
    model: nn.Module
    reference: nn.Module
    run: Callable[[nn.Module, Any], Any]
    batches: Sequence[Any]
    reference_batches: Sequence[Any]


class _Work:
    """The layers of a model, and which of them are done."""

    def __init__(
        self, method: ErrorFeedback, linears: dict[str, TrainableLinear], counts: dict[str, int], progress: Progress
    ) -> None:
        self._method, self._linears, self._counts, self._progress = method, linears, counts, progress
        self._done: set[str] = set()

    def place(self, place: _Place, names: Sequence[str]) -> None:
        """Calibrates those of some layers that are left, in the order in which they run."""
        left = [name.removeprefix(place.prefix) for name in names if name not in self._done]
        counts = {name: self._counts.get(place.prefix + name, 0) for name in left}
        for group, count in groups(place.model, place.run, place.batches[0], names=left, counts=counts):
            self._progress("calibrating layers (error feedback)", len(self._done), len(self._counts))
            moments = self._method.moments(place, group[0], count)
            for name in group:
                original = weight_rows(place.reference.get_submodule(name)).detach().float()
                self._method.linear(self._linears[place.prefix + name], original, moments)
            self._done |= {place.prefix + name for name in group}
        self._progress("calibrating layers (error feedback)", len(self._done), len(self._counts))
