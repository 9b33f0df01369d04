"""Candidates: a recipe carried out and measured on the half of the data that the search may see."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.files import write_json, write_text
from edgeq.formats.json_file import read_json_object
from edgeq.ledger import ledger
from edgeq.progress import Progress
from edgeq.results.base import plain, validated
from edgeq.search.quality import Half, measure, metric_name
from edgeq.search.report import MethodSet
from edgeq.search.space import METHODS

CANDIDATES = "candidates"
"""Folder of the candidates in that of a search."""
RECIPE_FILE = "recipe.toml"
RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model that was made and measured.

    Attributes:
        method: Method of calibration.
        recipe: Text of its recipe.
        metric: What was measured.
        value: The figure on the half that the search chooses by.
        bytes: Weights as stored.
    """

    method: MethodSet
    recipe: str
    metric: str
    value: float
    bytes: int

    @property
    def better_is(self) -> str:
        """``minimize`` or ``maximize``, as the metric has it."""
        return "minimize" if self.metric == "perplexity" else "maximize"


class Workshop:
    """Makes candidates in the folder of a search; what is there is not made again.

    Args:
        source: The float checkpoint.
        folder: Folder of the search.
        half: What they are measured on.
        calibration_data: Texts without labels; None for those that come with edgeq.
    """

    def __init__(self, source: Path, folder: Path, half: Half, *, calibration_data: Path | None) -> None:
        self._source, self._folder, self._half, self._data = source, folder, half, calibration_data

    def place(self, recipe: str) -> Path:
        """Returns the folder of a recipe's candidate."""
        return self._folder / CANDIDATES / hashlib.sha256(recipe.encode()).hexdigest()[:12]

    def checkpoint(self, recipe: str, method: MethodSet, *, progress: Progress) -> Path:
        """Returns the compressed checkpoint of a recipe, which is made where it is not there."""
        place = self.place(recipe)
        if not (place / "checkpoint").is_dir():
            write_text(place / RECIPE_FILE, recipe)
            compress_model(
                self._source,
                place / "checkpoint",
                recipe=place / RECIPE_FILE,
                calibration_data=self._data if METHODS[method] else None,
                progress=progress,
            )
        return place / "checkpoint"

    def measured(self, recipe: str, method: MethodSet, *, progress: Progress) -> Candidate:
        """Makes and measures a candidate.

        Raises:
            EdgeqError: If it cannot be made.
        """
        file = self.place(recipe) / RESULT_FILE
        if file.is_file():
            return _read(file)
        folder = self.checkpoint(recipe, method, progress=progress)
        found = measure(load_checkpoint(folder), self._half)
        stored = ledger(folder).stored_bytes
        made = Candidate(method, recipe, metric_name(found), found.value, stored)
        write_json(file, plain(made))
        return made


def _read(file: Path) -> Candidate:
    return validated(Candidate, read_json_object(file), where=str(file), fix="delete it")
