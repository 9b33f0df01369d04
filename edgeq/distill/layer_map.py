"""Which layer of the teacher each layer of the student is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgeq.errors import UsageError


@dataclasses.dataclass(frozen=True)
class LayerMap:
    """Pairs of layers, after XTC (Wu et al., NeurIPS 2022) and its released code.

    Attributes:
        layers: For each block of the student, the teacher's block, counted from 0.
    """

    layers: tuple[int, ...]

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Pairs of blocks whose attention is compared: ``(s, layers[s])``."""
        return tuple(enumerate(self.layers))

    @property
    def hidden(self) -> tuple[tuple[int, int], ...]:
        """Pairs of hidden states; state 0 is the embeddings' output and state i + 1 that of block i.

        State s + 1 of the student belongs to ``layers[s] + 1`` of the teacher, and state 0 to
        ``layers[0] - 1``, as in XTC's code: with layers 2, 4, ... the student's embeddings are pulled to the
        output of the teacher's block 0. Where the first layer is 0, state 0 belongs to state 0.
        """
        first = (0, max(self.layers[0] - 1, 0))
        return (first, *((student + 1, teacher + 1) for student, teacher in self.blocks))


def layer_map(*, student: int, teacher: int, kept: Sequence[int] | None = None) -> LayerMap:
    """Makes the map of a student with ``student`` blocks and a teacher with ``teacher``.

    Args:
        student: Blocks of the student.
        teacher: Blocks of the teacher.
        kept: The teacher's block of each of the student's; None takes the last of each ``teacher / student``
            blocks: 1, 3, ... 11 for 6 of 12, and every block where both have as many.

    Raises:
        UsageError: If ``kept`` has another length than the student, names no block of the teacher or is not in
            rising order; or if it is None and the numbers do not divide.
    """
    if kept is None:
        if teacher % student:
            raise UsageError(
                f"a student of {student} layers does not divide a teacher of {teacher}; say which layers it keeps"
            )
        every = teacher // student
        return LayerMap(tuple(range(every - 1, teacher, every)))
    if len(kept) != student:
        raise UsageError(f"the student has {student} layers, but {len(kept)} layers of the teacher were named")
    for layer in kept:
        if not 0 <= layer < teacher:
            raise UsageError(
                f"layer {layer} is unknown: the teacher has layers 0 to {teacher - 1}; name one of these"
            )
    if list(kept) != sorted(set(kept)):
        raise UsageError(f"the layers kept should be different and in rising order, found {list(kept)}")
    return LayerMap(tuple(kept))
