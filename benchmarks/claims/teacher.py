"""The teachers of SST-2 and STS-B: all-MiniLM-L6-v2 fine-tuned by edgeq's own training."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import torch
import transformers

from benchmarks.claims.measure import (
    TEACHERS,
    Places,
    checkpoint_sha256,
    measure_classifier,
    measure_regression,
    minilm,
    teacher_name,
)
from benchmarks.claims.setting import describe_setting
from benchmarks.claims.training_logs import read_log, training_seconds
from edgeq.checkpoint import load_tokenizer
from edgeq.distill import Objective, ObjectiveSettings
from edgeq.files import Output, new_folder
from edgeq.models import adapter_for
from edgeq.progress import Progress, silent
from edgeq.training import TrainingSettings, load_task_data, train

SEED = 1


@dataclasses.dataclass(frozen=True)
class _Task:
    """How the teacher of a task is made.

    Attributes:
        epochs: Passes over its data; the best evaluation counts.
        length: Tokens of a sentence or pair.
        evaluate_every: Steps between evaluations.
        head: What the configuration says of the classifier.
    """

    epochs: float
    length: int
    evaluate_every: int
    head: dict[str, Any]


_TASKS = {
    "sst2": _Task(1.0, 64, 500, {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}),
    "stsb": _Task(6.0, 128, 90, {"num_labels": 1}),
}


def train_teacher(places: Places, task: str, *, scale: float = 1.0, progress: Progress = silent) -> dict[str, Any]:
    """Fine-tunes the teacher of a task, or goes on with it, and writes its checkpoint.

    Args:
        places: Where data and runs are.
        task: ``sst2`` or ``stsb``.
        scale: Factor on the epochs; above 1 it counts as 1, because a teacher that is trained on overfits.
        progress: Told how far it is.

    Returns:
        What was measured of it, and by what its weights are known.
    """
    folder, own = places.runs / TEACHERS[task], _TASKS[task]
    tokenizer = load_tokenizer(minilm())
    torch.manual_seed(SEED)  # of the new classifier
    model = transformers.AutoModelForSequenceClassification.from_pretrained(minilm(), local_files_only=True, **own.head)
    adapter = adapter_for(model)
    settings = TrainingSettings(
        epochs=own.epochs * min(scale, 1.0),
        batch_size=32,
        learning_rate=5e-5,
        max_length=own.length,
        bf16=True,
        evaluate_every=own.evaluate_every,
        seed=SEED,
    )
    data = load_task_data(
        places.train_data(task),
        places.validation_data(task),
        tokenizer=tokenizer,
        adapter=adapter,
        max_length=own.length,
    )
    losses = Objective(ObjectiveSettings(labels=1.0, logits=0.0), student=adapter, teacher=None)
    train(
        model,
        None,
        data=data,
        settings=settings,
        objective=losses,
        out=folder / "training",
        resume=True,
        progress=progress,
    )
    with new_folder(folder / "checkpoint", Output("claims")) as checkpoint:
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
    for state in (folder / "training").glob("state-*"):
        shutil.rmtree(state)
    sha256 = checkpoint_sha256(folder / "checkpoint")
    result = {"name": teacher_name(sha256, task), "task": task, "epochs": settings.epochs, "seed": SEED}
    measure = measure_regression if task == "stsb" else measure_classifier
    result |= measure(folder / "checkpoint", places, progress=progress)
    seconds = training_seconds(read_log(folder))
    return result | {"teacher": sha256, "training_seconds": seconds, "setting": describe_setting()}
