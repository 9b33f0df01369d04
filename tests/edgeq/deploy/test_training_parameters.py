"""What a training inside a run depends on."""

import pytest
import torch

from edgeq.deploy.training import training_parameters
from edgeq.errors import UsageError
from edgeq.recipes import TrainingRequest
from edgeq.training.tensors import save_tensors


def test_the_checkpoint_that_it_starts_from(tmp_path):
    data = tmp_path / "train.tsv"
    data.write_text("sentence\tlabel\na\t0\n")
    start = tmp_path / "stage-train"
    start.mkdir()
    found = [training_parameters(TrainingRequest(train_data=data))]
    for value in (1.0, 2.0):
        save_tensors(start / "weights.safetensors", {"a": torch.tensor([value])})
        found.append(training_parameters(TrainingRequest(train_data=data, start_from=start)))
    assert found[0] != found[1] != found[2]
    with pytest.raises(UsageError, match="is no training checkpoint"):
        training_parameters(TrainingRequest(train_data=data, start_from=tmp_path))
