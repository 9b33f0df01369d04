"""Runs the methods of calibration one after the other, and stores what they come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch

from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.state import CalibrationState
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.modules import PackedModule
from edgeq.quant.plan import LayerRecord
from edgeq.quant.trainable import freeze

QUANTIZER = "grid"
"""The quantizer that plans of calibrated layers name."""


class Method(Protocol):
    """A method of calibration that works on layers in their training form."""

    def apply(self, state: CalibrationState, *, progress: Progress = silent) -> None:
        """Changes ``state.model`` in place."""
        ...


def calibrate(
    state: CalibrationState, methods: Sequence[Method], *, progress: Progress = silent
) -> list[LayerRecord]:
    """Calibrates a model and packs its layers in place.

    Args:
        state: The model in its training form, and all that belongs to it.
        methods: In the order in which they are to work.
        progress: Told how far each is.

    Returns:
        One record for each plan, with rounding errors against the float weights.

    Raises:
        EdgeqError: If a loss is not a number.
    """
    for method in methods:
        method.apply(state, progress=progress)
    records = freeze(state.model, progress=progress)
    return [_measured(record, state) for record in records]


@torch.no_grad()
def _measured(record: LayerRecord, state: CalibrationState) -> LayerRecord:
    """Compares with the float weights: latent ones have moved."""
    packed = state.model.get_submodule(record.name)
    if record.tied_to is not None or not isinstance(packed, PackedModule):
        return record
    weight = weight_rows(state.reference.get_submodule(record.name)).detach().double()
    energy = float(weight.square().sum())
    error = float((packed.dequantized().double() - weight).square().sum())
    return dataclasses.replace(record, relative_error=error / energy if energy > 0 else 0.0)
