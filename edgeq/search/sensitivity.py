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
from edgeq.quant.plan import LayerPlan
from edgeq.search.report import Choice, SearchLayer
from edgeq.search.rounding import GRIDS, Rounded, Rounding, grid_of_width, nearest

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
    round_to: Rounding = nearest,
    progress: Progress = silent,
) -> list[SearchLayer]:
    """Rounds one layer at a time to each width and compares the model's output with the float one.

    Embeddings are compared by their squared distance, logits by the divergence of what they say is likely.

    The error of 8 bits is that of 4 bits times the ratio of their rounding errors.

    Args:
        model: The float model; it is the same afterwards.
        adapter: Its adapter.
        plans: The plans of all of its layers.
        batches: Calibration texts.
        pooling: How token states become a sentence embedding, for embedding models.
        round_to: Rounds a layer.
        progress: Told how many layers are done.

    Returns:
        The layers whose width is free, in the order of the plans.
    """
    replay = _Replay(model, adapter)
    reference = _Reference(model, adapter, batches, pooling=pooling, recording=replay.recording)
    free = searched(plans)
    layers = []
    for index, plan in enumerate(free):
        progress("measuring how sensitive layers are", index, len(free))
        error_now = functools.partial(reference.error, functools.partial(replay.up_to, plan.name))
        choices = _choices(model.get_submodule(plan.name), functools.partial(round_to, plan.name), error_now)
        layers.append(SearchLayer(plan.name, plan.kind, choices))
    progress("measuring how sensitive layers are", len(free), len(free))
    return layers


_Around = Callable[[int], contextlib.AbstractContextManager[None]]
"""What each run of a batch, by its number, happens in."""


class _Reference:
    """What the float model gives for calibration texts, and how far its output is from that with other weights.

    Args:
        model: The float model.
        adapter: Its adapter.
        batches: Calibration texts.
        pooling: How token states become a sentence embedding, for embedding models.
        recording: What the float model's runs happen in.
    """

    def __init__(
        self, model: Any, adapter: ModelAdapter, batches: Sequence[Batch], *, pooling: Pooling, recording: _Around
    ) -> None:
        self._reader = FeatureReader(model.eval(), adapter, wanted=Wanted(), pooling=pooling)
        self._batches, self._embeds = batches, adapter.task == "embed"
        self._is_value = adapter.task in ("classify", "tag") and adapter.config.num_labels == 1
        self._outputs = list(self._run(recording))

    def error(self, around: _Around) -> float:
        """Returns how far the output is from that of the float model.

        Of embeddings of length 1 it is the mean squared distance; of logits the mean divergence (Kullback and Leibler)
        of what they say is likely, in nats; of single values the squared difference over their square.
        """
        total, whole = 0.0, 0.0
        for output, wanted in zip(self._run(around), self._outputs, strict=True):
            if self._embeds or self._is_value:
                total += float((output - wanted).square().sum())
                whole += float(wanted.square().sum())
            else:
                # Rounding errors of float32 may take a divergence below 0.
                total += float((wanted.exp() * (wanted - output)).sum(dim=-1).clamp(min=0).sum())
                whole += wanted[..., 0].numel()
        return total / max(whole, 1e-30)

    def _run(self, around: _Around) -> Iterator[torch.Tensor]:
        for number, batch in enumerate(self._batches):
            with around(number):
                output = self._reader(batch).output.float()
            if self._embeds:
                yield torch.nn.functional.normalize(output, dim=-1)
            else:
                yield output if self._is_value else output.log_softmax(dim=-1)


def _choices(
    layer: Any, round_to: Callable[[torch.Tensor, int], Rounded], error_now: Callable[[], float]
) -> tuple[Choice, ...]:
    """Rounds a layer to each width in turn; its weights and its bias are what they were afterwards."""
    rows, bias = weight_rows(layer), getattr(layer, "bias", None)
    start = None if bias is None else bias.clone()
    original = rows.clone().float()
    choices, error = [], 0.0
    for bits in GRIDS:
        if bits <= _WIDEST_MEASURED:
            found = round_to(original, bits)
            shifted = None if start is None or found.shift is None else start + found.shift
            with _changed(rows, found.rows), _changed(bias, shifted):
                error = error_now()
        else:
            measured = _rounding(original, _WIDEST_MEASURED)
            error = error * _rounding(original, bits) / measured if measured > 0 else 0.0
        choices.append(Choice(bits, _stored(rows, bits), error))
    return tuple(choices)


def _rounding(rows: torch.Tensor, bits: int) -> float:
    return float((nearest("", rows, bits).rows - rows).square().sum())


@contextlib.contextmanager
def _changed(values: torch.Tensor | None, others: torch.Tensor | None) -> Iterator[None]:
    """Gives a tensor other values for as long as the context lasts; without others it keeps its own."""
    if values is None or others is None:
        yield
        return
    original = values.clone()
    values.copy_(others)
    try:
        yield
    finally:
        values.copy_(original)


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


def _stored(rows: torch.Tensor, bits: int) -> int:
    grid = grid_of_width(bits)
    spec = PackedMatrix(rows.shape[0], rows.shape[1], bits, grid.zero_point, rows.shape[0])
    return spec.packed_bytes + spec.scale_bytes
