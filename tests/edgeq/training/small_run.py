"""A small quantized run as a program of its own: `python small_run.py OUT [SECONDS_A_STEP]`, or under accelerate."""

import os
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.models import adapter_for
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.trainable import make_trainable, set_stage
from edgeq.training import ExampleSet, StageSettings, TaskData, TrainingSettings, train


def classifier():
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 44}
    config = transformers.BertConfig(**sizes, num_hidden_layers=2, max_position_embeddings=24)
    return transformers.BertForSequenceClassification(config)


def examples(count, seed):
    random = np.random.default_rng(seed)
    inputs = [random.integers(8, 60, random.integers(3, 9)).astype(np.int32) for _ in range(count)]
    types = [np.zeros_like(ids) for ids in inputs]
    return ExampleSet(inputs, 0, types, np.array([int(ids[1] % 2) for ids in inputs]))


def main(out, seconds):
    teacher, student = classifier(), classifier()
    adapter = adapter_for(student)
    plans = [LayerPlan(name, "embedding", grid_for(2), method="module-scaling") for name in adapter.embedding_names]
    plans += [
        LayerPlan(name, "linear", grid_for(2), per_row=False, activation="dynamic", method="module-scaling")
        for name in adapter.linear_names
    ]
    make_trainable(student, plans)
    stages = (StageSettings(name="four", bits=4), StageSettings(name="two", bits=2))
    settings = TrainingSettings(
        steps=24, batch_size=8, learning_rate=1e-3, evaluate_every=4, save_every=2, log_every=4, dropout=False,
        stages=stages,
    )  # fmt: skip
    weights = ObjectiveSettings(hidden=1, attention=1, contrastive=0.1, contrastive_momentum=0.5)
    train(
        student,
        teacher,
        data=TaskData("classification", examples(80, 1), examples(30, 2)),
        settings=settings,
        objective=Objective(weights, student=adapter, teacher=adapter),
        out=out,
        resume=True,
        begin_stage=lambda model, stage: set_stage(model, bits=stage.bits, activations=stage.name == "two"),
        progress=lambda *_: time.sleep(seconds),
    )
    if os.environ.get("RANK", "0") == "0":
        save_file({name: value.clone() for name, value in student.state_dict().items()}, f"{out}.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
