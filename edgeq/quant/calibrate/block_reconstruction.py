"""``block-reconstruction``: rounding and scales of one block at a time, trained against the float block's output.

The objective is that of AdaRound (Nagel et al., 2020) and BRECQ (Li et al., 2021): a weight may end on another level
than the nearest one if the block's output is better for it. Codes are learned through the straight-through gradient of
latent weights rather than through a soft rounding between two neighbours, which leaves all levels open at 1 and 2 bits.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.blocks import Block, blocks_of, run_block
from edgeq.quant.calibrate.optimise import Rates, minimise, parameter_groups
from edgeq.quant.calibrate.state import CalibrationState

_SMALLEST = 1e-12


@dataclasses.dataclass(frozen=True)
class BlockReconstruction:
    """Settings of the method.

    Attributes:
        tokens: Most tokens that are read.
        steps: Steps for each block.
        batch_tokens: Tokens of a step.
        rates: Learning rates.
    """

    tokens: int
    steps: int
    batch_tokens: int
    rates: Rates

    def apply(self, state: CalibrationState, *, progress: Progress = silent) -> None:
        """Trains latent weights, scales, biases and norms of the blocks of ``state.model``, one block at a time."""
        batches = list(state.texts.batches(self.batch_tokens, seed=state.seed, most=self.tokens))
        for stack in state.stacks:
            for block in blocks_of(state, stack, batches):
                self._block(block, state.seed, progress)

    def _block(self, block: Block, seed: int, progress: Progress) -> None:
        groups = parameter_groups(block.model, self.rates)
        if not groups:
            return
        with torch.no_grad():
            targets = [run_block(block.reference, call) for call in block.reference_calls]
        energy = max(float(np.mean([float(target.var()) for target in targets])), _SMALLEST)

        def loss(index: int) -> torch.Tensor:
            made = run_block(block.model, block.calls[index])
            return (made - targets[index]).square().mean() / energy

        random = np.random.default_rng(seed)
        minimise(
            loss,
            (int(index) for index in random.integers(0, len(targets), self.steps)),
            groups=groups,
            steps=self.steps,
            what=f"calibrating {block.name} (block reconstruction)",
            progress=progress,
        )
