"""What a task is trained on, if its data have a form of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeq.errors import UsageError
from edgeq.models import ModelAdapter
from edgeq.training.examples import ExampleSet
from edgeq.training.figures import Figures
from edgeq.training.rows import Split


@dataclasses.dataclass(frozen=True)
class Reading:
    """What examples are made with.

    Attributes:
        tokenizer: The model's tokenizer.
        adapter: The model's adapter.
        max_length: Tokens of an example.
        split: Which part of the data is read.
    """

    tokenizer: Any
    adapter: ModelAdapter
    max_length: int
    split: Split

    @property
    def pad(self) -> int:
        """Id of padding."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def types(self, rows: list[Any]) -> list[np.ndarray] | None:
        """Returns the token types of examples, for models that read them."""
        if "token_type_ids" not in self.adapter.input_names:
            return None
        return [np.array(row["token_type_ids"], np.int32) for row in rows]


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a task is trained and measured.

    Attributes:
        examples: Reads and tokenises a file.
        rows: From the output of a batch, and the batch, to what is kept of each example, ``[batch, columns]``.
        figures: From those rows, float64 ``[examples, columns]``, to what was measured.
    """

    examples: Callable[[Path, Reading], ExampleSet]
    rows: Callable[[torch.Tensor, dict[str, torch.Tensor], ModelAdapter], torch.Tensor]
    figures: Callable[[np.ndarray, ExampleSet], Figures]


def existing_file(source: str | Path, what: str) -> Path:
    """Returns the file of data that no table of texts holds.

    Raises:
        UsageError: If there is no such file; ``what`` says what it should hold.
    """
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"there is no file {str(source)!r}; give {what} as a file")
    return path
