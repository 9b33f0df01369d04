"""The task stage of models that continue texts."""

from pathlib import Path

import numpy as np
import pytest
import torch

import edgeq
from edgeq.backends.log_probabilities import BundleLogProbabilities
from edgeq.checkpoint import load_checkpoint
from edgeq.deploy import perplexity
from edgeq.deploy.perplexity import measure_perplexity, perplexity_loss
from edgeq.evaluate.data import TextFile
from edgeq.evaluate.perplexity import Perplexity
from edgeq.models import TorchDecoder

WORDS = ["the cat sat over the lazy dog", "a quick brown fox jumps", "good movie, good dog!", "Straße und Ähre"]


def measured(log_probabilities, context=4):
    values = np.asarray(log_probabilities, np.float32)
    value = float(np.exp(-values.mean(dtype=np.float64)))
    return Perplexity(value, len(values), None, 1, context, context, values)


@pytest.fixture(scope="module")
def result(make_gpt2, gpt2_onnx, gpt2_bundle):
    text = TextFile(Path("text.txt"), " ".join(WORDS * 4))
    return measure_perplexity(
        make_gpt2(n_positions=164, seed=5),
        gpt2_onnx.parent / "checkpoint",
        {"host": gpt2_bundle},
        text=text,
        cache_dtype=torch.float16,
        progress=lambda *_: None,
    )


def test_every_stage_is_measured_on_the_same_tokens(result):
    assert list(result.stages) == ["torch float32", "torch compressed", "bundle host"]
    values = [stage.value for stage in result.stages.values()]
    assert all(100 < value < 1000 for value in values)
    assert set(result.losses) == {"torch compressed", "bundle host"}
    assert (result.metric, result.unit) == ("perplexity", "tokens")
    assert result.losses["bundle host"].value == pytest.approx(values[2] - values[0])
    assert result.losses["bundle host"].low < result.losses["bundle host"].high
    (check,) = result.checks
    assert (check.stage, check.rule, check.passed) == ("bundle host", "task", True)
    assert check.measured["relative"] < 1e-3


def test_one_model_is_gone_before_the_next_one_is_there(make_gpt2, gpt2_onnx, alive_at_loads):
    alive = alive_at_loads(perplexity)
    checkpoint, text = gpt2_onnx.parent / "checkpoint", TextFile(Path("text.txt"), WORDS[0])
    kept = {"cache_dtype": torch.float16, "progress": lambda *_: None}
    measure_perplexity(make_gpt2(n_positions=164, seed=5), checkpoint, {}, text=text, **kept)
    assert alive == [0, 0]


def test_a_bundle_scores_step_by_step_what_torch_scores_at_once(gpt2_onnx, gpt2_bundle):
    checkpoint = load_checkpoint(gpt2_onnx.parent / "checkpoint")
    ids = np.random.default_rng(0).integers(0, 283, (3, 12))
    want = TorchDecoder(checkpoint.model, checkpoint.adapter).score(ids)
    got = BundleLogProbabilities(edgeq.load(gpt2_bundle, threads=1))({"input_ids": ids})["log_probabilities"]
    assert got.shape == want.shape == (3, 11)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02


def test_an_increase_has_an_interval_over_windows():
    better, worse = np.full(40, -2.0), np.full(40, -2.0)
    worse[:4] = -6.0  # one window of ten carries all of the difference
    loss = perplexity_loss(measured(better), measured(worse))
    assert loss.value == pytest.approx(np.exp(2.4) - np.exp(2.0))
    assert loss.low == pytest.approx(0.0, abs=1e-6)
    assert loss.high > loss.value
    assert loss.retained == pytest.approx(np.exp(-0.4))
    same = perplexity_loss(measured(better), measured(better))
    assert (same.value, same.low, same.high, same.retained) == (0.0, 0.0, 0.0, 1.0)
