"""Pre-training on texts without labels, before the task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.compress import compress_model, training_folder
from edgeq.errors import UsageError
from edgeq.recipes import TrainingRequest
from edgeq.training.tensors import load_tensors

LINE = "the quick brown fox jumps over the lazy dog . a cat sat ."


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join([LINE, LINE[10:], LINE[20:], "the lazy dog"] * 4) + "\n")
    return file


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "train.tsv"
    file.write_text("sentence\tlabel\n" + "good movie\t1\nlazy movie\t0\na good fox\t1\na lazy fox\t0\n" * 2)
    return file


def _recipe(folder: Path, base: str, changes: str = "") -> Path:
    file = folder / "tiny.toml"
    file.write_text(
        f"extends = '{base}'\nname = 'tiny'\n"
        f"[training]\nbatch_size = 4\nmax_length = 16\nlearning_rate = 1e-3\n{changes}"
    )
    return file


def _log(out: Path, stage: str) -> list[dict[str, Any]]:
    lines = (training_folder(out) / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == stage]


def test_texts_are_read_before_the_task(
    make_bert: Callable[..., Path], sentences: Path, texts: Path, tmp_path: Path
) -> None:
    source = make_bert("BertForSequenceClassification", seed=9)
    recipe = _recipe(tmp_path, "xtc-l12-w2a8", "[pretraining]\nepochs = 3\nlearning_rate = 2e-3\n")
    out = tmp_path / "out"
    request = TrainingRequest(train_data=sentences, eval_data=sentences, pretrain_data=texts, epochs=1)
    compress_model(source, out, recipe=recipe, training=request)
    first, task = _log(out, "pretraining"), _log(out, "train")
    # Each of the text's lines counts once: 4 different ones, in one batch; 3 epochs.
    assert [line["step"] for line in first] == [3]
    assert first[0]["learning_rate"] > task[0]["learning_rate"]
    assert "evaluation" in task[-1]
    weights = [
        load_tensors(training_folder(out) / f"stage-{name}" / "weights.safetensors")
        for name in ("pretraining", "train")
    ]
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not weights[0][name].equal(weights[1][name])


def test_labels_are_left_out_unless_the_text_has_them(
    make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], sentences: Path, texts: Path, tmp_path: Path
) -> None:
    bert = make_bert("BertForSequenceClassification", seed=9)
    recipe = _recipe(tmp_path, "xtc-l12-w2a8", "[distill]\nlabels = 1.0\n")
    request = TrainingRequest(train_data=sentences, pretrain_data=texts, epochs=1)
    compress_model(bert, tmp_path / "bert", recipe=recipe, training=request)
    assert "labels" in _log(tmp_path / "bert", "train")[0]
    assert "labels" not in _log(tmp_path / "bert", "pretraining")[0]
    recipe = _recipe(tmp_path, "kngpt2", "[factor]\nblocks = [1]\n")
    request = TrainingRequest(train_data=texts, pretrain_data=texts, epochs=1)
    compress_model(make_gpt2(seed=2), tmp_path / "gpt2", recipe=recipe, training=request)
    assert {"labels", "hidden", "attention"} <= _log(tmp_path / "gpt2", "pretraining")[0].keys()


def test_an_interrupted_pretraining_goes_on_to_the_same_bytes(
    make_bert: Callable[..., Path], sentences: Path, texts: Path, tmp_path: Path
) -> None:
    source = make_bert("BertForSequenceClassification", seed=9)
    changes = "evaluate_every = 1\n[pretraining]\nepochs = 4\n"
    recipe = _recipe(tmp_path, "xtc-l12-w2a8", changes)
    request = TrainingRequest(train_data=sentences, pretrain_data=texts, epochs=1)
    compress_model(source, tmp_path / "whole", recipe=recipe, training=request)

    def interrupt(what: str, done: int, _total: int) -> None:
        if what == "training (pretraining)" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(source, tmp_path / "cut", recipe=recipe, training=request, progress=interrupt)
    again = TrainingRequest(train_data=sentences, pretrain_data=texts, epochs=1, resume=True)
    compress_model(source, tmp_path / "cut", recipe=recipe, training=again)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_an_encoder_decoder_is_refused(make_bart: Callable[..., Path], texts: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("source\ttarget\n" + "the quick fox\ta fox\n" * 4)
    request = TrainingRequest(train_data=pairs, pretrain_data=texts, epochs=1)
    with pytest.raises(UsageError, match=r"texts\.txt: pre-training on texts is for BERT and GPT-2"):
        compress_model(make_bart(), tmp_path / "out", recipe=_recipe(tmp_path, "finetune"), training=request)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("finetune", "", "learns from labels alone, and texts to pre-train on have none"),
        ("xtc-l12-w2a8", "[pretraining.distill]\nlabels = 0.5\n", r"distill\.labels should be 0, found 0\.5"),
    ],
)
def test_labels_that_a_text_does_not_have(
    make_bert: Callable[..., Path], sentences: Path, texts: Path, tmp_path: Path, base: str, changes: str, message: str
) -> None:
    source = make_bert("BertForSequenceClassification", seed=9)
    request = TrainingRequest(train_data=sentences, pretrain_data=texts, epochs=1)
    with pytest.raises(UsageError, match=message):
        compress_model(source, tmp_path / "out", recipe=_recipe(tmp_path, base, changes), training=request)


def test_a_stage_may_not_take_its_name(tmp_path: Path, make_bert: Callable[..., Path], sentences: Path) -> None:
    recipe = _recipe(tmp_path, "xtc-l12-w2a8", "[[stage]]\nname = 'pretraining'\nshare = 1.0\n")
    with pytest.raises(UsageError, match="'pretraining' needs a name of its own"):
        compress_model(make_bert(), tmp_path / "out", recipe=recipe, training=TrainingRequest(train_data=sentences))
