"""What a search chooses besides widths: calibration, share of the budget, blocks, factors and vocabulary."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from edgeq.models import ModelAdapter
from edgeq.search.report import MethodSet, Structure

METHODS: dict[MethodSet, tuple[str, ...]] = {
    "nearest": (),
    "error-feedback": ("error-feedback",),
    "distill": ("error-feedback", "distill"),
}
"""Methods of calibration that are tried, the cheapest first."""
ROUNDINGS: dict[MethodSet, MethodSet] = {
    "nearest": "nearest", "error-feedback": "error-feedback", "distill": "error-feedback",
}  # fmt: skip
"""How layers are rounded whose errors a method's widths are chosen by: distillation begins with error feedback."""
SHARES = (1.0, 0.85, 0.7)
"""Shares of the budget of bytes: the front has models that are smaller than asked for."""
FACTORS: dict[str, str] = {
    "low-rank": '[factor]\nmethod = "low-rank"\nrank = {rank}\nroles = ["expand", "contract"]\nblocks = "{blocks}"\n',
    "kronecker": (
        '[factor]\nmethod = "kronecker"\nblocks = "{blocks}"\n[factor.expand]\nright = [1, 2]\n'
        "[factor.contract]\nright = [2, 1]\n"
    ),
}
"""Factors of feed-forward matrices, each of half the multiply-accumulates of the dense ones."""
_FACTOR_BLOCKS = ("odd", "even", "all")
_FEWEST_BLOCKS = 3


@dataclasses.dataclass(frozen=True)
class Space:
    """The choices of a search.

    Attributes:
        methods: Methods of calibration.
        blocks: Numbers of blocks, 0 for all of them; fewer need distillation.
        factors: Factors; ``none`` is always there.
        vocabulary: Corpus that the vocabulary may be pruned for, or None.
        depth: Blocks of each stack of the float model.
        rank: Rank of low-rank factors of half the multiply-accumulates.
    """

    methods: tuple[MethodSet, ...]
    blocks: tuple[int, ...] = (0,)
    factors: tuple[str, ...] = ("none",)
    vocabulary: Path | None = None
    depth: int = 0
    rank: int = 1

    @property
    def structures(self) -> list[Structure]:
        """All shapes that a model may have, the float model's first."""
        pruned = (False,) if self.vocabulary is None else (False, True)
        return [Structure(blocks, factor, cut) for cut in pruned for factor in self.factors for blocks in self.blocks]

    @property
    def combinations(self) -> int:
        """How many candidates there are."""
        distilled = "distill" in self.methods
        whole, fewer = (len([s for s in self.structures if bool(s.blocks) is few]) for few in (False, True))
        return len(SHARES) * (whole * len(self.methods) + fewer * distilled)

    def tables(self, structure: Structure) -> str:
        """Returns the tables of a recipe that make a structure."""
        parts = []
        if structure.pruned and self.vocabulary is not None:
            parts.append(f"[vocabulary]\nkeep = '{self.vocabulary.absolute()}'\n")
        if structure.blocks:
            parts.append(f"[layers]\nkeep = {list(evenly(structure.blocks, self.depth))}\n")
        if structure.factor != "none":
            kind, blocks = structure.factor.split(", ")
            parts.append(FACTORS[kind].format(rank=self.rank, blocks=blocks))
        return "\n".join(parts)


def evenly(count: int, depth: int) -> tuple[int, ...]:
    """Returns the blocks that are kept, the first and the last among them, at even distances."""
    return tuple(round(index * (depth - 1) / max(1, count - 1)) for index in range(count))


def space_of(
    adapter: ModelAdapter, *, methods: tuple[MethodSet, ...], shapes: bool, vocabulary: Path | None
) -> Space:
    """Returns the choices that a model has.

    Args:
        adapter: The adapter of the float model.
        methods: Methods of calibration to try.
        shapes: Whether blocks may be dropped and feed-forward matrices factorised.
        vocabulary: Corpus for a pruned vocabulary, or None.
    """
    # Encoder-decoders have two stacks, and those without stacks blocks that nobody can take out.
    if not shapes or len(adapter.stacks) != 1:
        return Space(methods, vocabulary=vocabulary)
    stack, config = adapter.stacks[0], adapter.config
    fewer = sorted({math.ceil(0.75 * stack.depth), math.ceil(0.5 * stack.depth)} - {stack.depth}, reverse=True)
    usable = [count for count in fewer if count >= _FEWEST_BLOCKS and "distill" in methods]
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * stack.width
    rank = max(1, stack.width * inner // (2 * (stack.width + inner)))
    factors = [f"{kind}, {blocks}" for kind in FACTORS for blocks in _FACTOR_BLOCKS] if stack.depth > 1 else []
    if inner % 2:
        factors = [one for one in factors if not one.startswith("kronecker")]
    return Space(methods, (0, *usable), ("none", *factors), vocabulary, stack.depth, rank)
