"""The teacher of the SST-2 tables: all-MiniLM-L6-v2 fine-tuned by edgeq's own training."""

from __future__ import annotations

import shutil
from typing import Any

import torch
import transformers

from benchmarks.claims.measure import (
    TEACHER,
    Places,
    checkpoint_sha256,
    measure_classifier,
    minilm,
    teacher_name,
)
from benchmarks.claims.setting import describe_setting
from edgeq.checkpoint import load_tokenizer
from edgeq.distill import Objective, ObjectiveSettings
from edgeq.files import new_folder
from edgeq.models import adapter_for
from edgeq.progress import Progress, silent
from edgeq.training import TrainingSettings, load_task_data, train

EPOCHS = 1.0
SEED = 1
LENGTH = 64


def train_teacher(places: Places, *, scale: float = 1.0, progress: Progress = silent) -> dict[str, Any]:
    """Fine-tunes the teacher, or goes on with it, and writes its checkpoint.

    Args:
        places: Where data and runs are.
        scale: Factor on the epochs; above 1 it counts as 1, because a teacher that is trained on overfits.
        progress: Told how far it is.

    Returns:
        What was measured of it, and by what its weights are known.
    """
    folder = places.runs / TEACHER
    tokenizer = load_tokenizer(minilm())
    torch.manual_seed(SEED)  # of the new classifier
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm(), local_files_only=True, num_labels=2, id2label={0: "negative", 1: "positive"}
    )
    adapter = adapter_for(model)
    settings = TrainingSettings(
        epochs=EPOCHS * min(scale, 1.0),
        batch_size=32,
        learning_rate=5e-5,
        max_length=LENGTH,
        bf16=True,
        evaluate_every=500,
        seed=SEED,
    )
    data = load_task_data(
        places.train_data("sst2"),
        places.validation_data("sst2"),
        tokenizer=tokenizer,
        adapter=adapter,
        max_length=LENGTH,
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
    with new_folder(folder / "checkpoint") as checkpoint:
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
    for state in (folder / "training").glob("state-*"):
        shutil.rmtree(state)
    sha256 = checkpoint_sha256(folder / "checkpoint")
    result = {"name": teacher_name(sha256), "task": "sst2", "epochs": settings.epochs, "seed": SEED}
    result |= measure_classifier(folder / "checkpoint", places, progress=progress)
    return result | {"teacher": sha256, "setting": describe_setting()}
