"""What each layer costs at each width: bytes as stored, and how far the output of the model moves."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from edgeq.distill import FeatureReader
from edgeq.distill.features import Wanted
from edgeq.distill.sentence import Pooling
from edgeq.formats.low_bit import PackedMatrix
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.calibrate import Batch
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.grids import GridName, grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.scale_search import round_weight, search_scale
from edgeq.search.report import Choice, SearchLayer

GRIDS: dict[int, GridName] = {1: "binary", 2: "balanced", 4: "symmetric", 8: "symmetric"}
"""Widths that are tried, and the levels of each."""
_FLOAT_BYTES = 4
_WIDEST_MEASURED = 4
"""Wider rounding is so fine that the output moves in proportion to it: its error follows from that of this width."""


def searched(plans: Sequence[LayerPlan]) -> list[LayerPlan]:
    """Returns the plans of the layers whose width is free: stored in few bits, with weights of their own."""
    return [plan for plan in plans if plan.grid is not None and plan.tied_to is None and "classifier" not in plan.name]


def fixed_bytes(model: Any, plans: Sequence[LayerPlan]) -> int:
    """Returns the bytes of all that the search does not change: float tensors, and layers of fixed width.

    Args:
        model: The float model.
        plans: The plans of all of its layers.
    """
    free = {plan.name for plan in searched(plans)}
    packed = [plan for plan in plans if plan.grid is not None]
    weights = {weight_rows(model.get_submodule(plan.name)).data_ptr() for plan in packed}
    seen: set[int] = set()
    total = 0
    for value in model.state_dict(keep_vars=True).values():
        if value.data_ptr() not in weights and value.data_ptr() not in seen:
            total += _FLOAT_BYTES * value.numel()
        seen.add(value.data_ptr())
    for plan in packed:
        if plan.name not in free and plan.tied_to is None and plan.grid is not None:
            total += _stored(weight_rows(model.get_submodule(plan.name)), plan.grid.bits)
    return total


def narrowest_bytes(model: Any, plans: Sequence[LayerPlan]) -> int:
    """Returns the bytes of the layers whose width is free, with the narrowest width of each."""
    return sum(_stored(weight_rows(model.get_submodule(plan.name)), min(GRIDS)) for plan in searched(plans))


@torch.no_grad()
def measure_sensitivity(
    model: Any,
    adapter: ModelAdapter,
    plans: Sequence[LayerPlan],
    *,
    batches: Sequence[Batch],
    pooling: Pooling = "mean",
    progress: Progress = silent,
) -> list[SearchLayer]:
    """Rounds one layer at a time to each width and compares the model's output with the float one.

    The error of 8 bits is that of 4 bits times the ratio of their rounding errors.

    Args:
        model: The float model; it is the same afterwards.
        adapter: Its adapter.
        plans: The plans of all of its layers.
        batches: Calibration texts.
        pooling: How token states become a sentence embedding, for embedding models.
        progress: Told how many layers are done.

    Returns:
        The layers whose width is free, in the order of the plans.
    """
    reader = FeatureReader(model.eval(), adapter, wanted=Wanted(), pooling=pooling)
    replay = _Replay(model, adapter)
    reference = []
    for number, batch in enumerate(batches):
        with replay.recording(number):
            reference.append(_output(reader, batch, adapter))
    energy = max(sum(float(one.square().sum()) for one in reference), 1e-30)

    def error_of(layer: str) -> float:
        total = 0.0
        for number, (batch, wanted) in enumerate(zip(batches, reference, strict=True)):
            with replay.up_to(layer, number):
                total += float((_output(reader, batch, adapter) - wanted).square().sum())
        return total / energy

    free = searched(plans)
    layers = []
    try:
        for index, plan in enumerate(free):
            progress("measuring how sensitive layers are", index, len(free))
            rows = weight_rows(model.get_submodule(plan.name))
            choices = _choices(rows, functools.partial(error_of, plan.name))
            layers.append(SearchLayer(plan.name, plan.kind, choices))
    finally:
        reader.close()
    progress("measuring how sensitive layers are", len(free), len(free))
    return layers


def _choices(rows: torch.Tensor, error_now: Callable[[], float]) -> tuple[Choice, ...]:
    """Rounds the rows of a layer to each width in turn; they are what they were afterwards."""
    original = rows.clone()
    choices, error, measured = [], 0.0, 0.0
    for bits, name in GRIDS.items():
        grid = grid_for(bits, name)
        scale = search_scale(original.float().contiguous(), grid, per_row=True)
        levels = round_weight(original.float(), scale, grid).float() - grid.zero_point
        rows.copy_(levels * scale[:, None])
        rounding = float((rows - original).square().sum())
        if bits <= _WIDEST_MEASURED:
            measured, error = rounding, error_now()
        else:
            error = error * rounding / measured if measured > 0 else 0.0
        choices.append(Choice(bits, _stored(rows, bits), error))
    rows.copy_(original)
    return tuple(choices)


class _Replay:
    """What the blocks of the float model gave for each batch: those in front of a changed layer give it again.

    Models without one stack of blocks run as a whole.

    Args:
        model: The float model.
        adapter: Its adapter.
    """

    def __init__(self, model: Any, adapter: ModelAdapter) -> None:
        stacks = adapter.stacks if len(adapter.stacks) == 1 else ()
        self._names = [stack.block(index) for stack in stacks for index in range(stack.depth)]
        self._blocks = [model.get_submodule(name) for name in self._names]
        self._given: dict[tuple[int, int], Any] = {}

    @contextlib.contextmanager
    def recording(self, batch: int) -> Iterator[None]:
        """Keeps what each block gives."""

        def keep(place: int) -> Callable[..., None]:
            def hook(_block: Any, _inputs: Any, output: Any) -> None:
                self._given[place, batch] = output

            return hook

        hooks = [block.register_forward_hook(keep(place)) for place, block in enumerate(self._blocks)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def up_to(self, layer: str, batch: int) -> Iterator[None]:
        """Lets the blocks in front of the one that holds a layer give what they gave; other layers change nothing."""
        inside = [place for place, name in enumerate(self._names) if layer.startswith(f"{name}.")]
        front = range(inside[0]) if inside else range(0)
        for place in front:
            # An attribute of the module itself comes before the method of its class.
            self._blocks[place].forward = lambda *_, _given=self._given[place, batch], **_named: _given
        try:
            yield
        finally:
            for place in front:
                del self._blocks[place].forward


def _output(reader: FeatureReader, batch: Batch, adapter: ModelAdapter) -> torch.Tensor:
    output = reader(batch).output.float()
    if adapter.task == "embed":
        return torch.nn.functional.normalize(output, dim=-1)
    # What a label or a next token depends on is differences between logits.
    return output - output.mean(dim=-1, keepdim=True)


def _stored(rows: torch.Tensor, bits: int) -> int:
    grid = grid_for(bits, GRIDS[bits])
    spec = PackedMatrix(rows.shape[0], rows.shape[1], bits, grid.zero_point, rows.shape[0])
    return spec.packed_bytes + spec.scale_bytes
