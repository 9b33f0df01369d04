"""Checkpoints of models with heads: loaded, compressed with the table of words stored once, and loaded again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import edgeq.hf  # noqa: F401  # teaches transformers to load compressed checkpoints
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.ledger import ledger
from edgeq.models import TorchEncoder

IDS = np.array([[2, 11, 12, 13, 3], [2, 14, 3, 1, 1]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK)).logits
    return logits


def _copy(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out))


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(
    scope="module", params=["BertForMaskedLM", "RobertaForMaskedLM", "AlbertForMaskedLM", "ElectraForMaskedLM"]
)
def masked(request: pytest.FixtureRequest, make_encoder: Callable[..., Path]) -> Path:
    narrow = {"embedding_size": 24} if request.param[0] in "AE" else {}
    return make_encoder(request.param, num_hidden_layers=1, **narrow)


def test_a_masked_model_keeps_its_table_once(masked: Path, tmp_path: Path) -> None:
    compress_model(masked, tmp_path / "out", recipe="ptq-w4a8", task="fill-mask")
    again = load_checkpoint(tmp_path / "out")
    assert again.adapter.task == "fill"
    assert again.manifest is not None
    (head,) = again.manifest.tied
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert [name for name in stored if name.startswith(head)] == [f"{head}.bias"]
    size = again.adapter.config.vocab_size
    assert [name for name in stored if name.endswith("bias") and stored[name].shape == (size,)] == [f"{head}.bias"]
    original = load_checkpoint(masked, task="fill-mask").model
    assert torch.equal(again.model.get_submodule(head).bias, original.get_submodule(head).bias)
    ours = TorchEncoder(again.model, again.adapter)(IDS, MASK)["logits"]
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    # ELECTRA has its attention as one operator in the exported graph, which rounds otherwise.
    np.testing.assert_allclose(_logits(loaded).numpy()[MASK == 1], ours[MASK == 1], atol=1e-5)
    # Rounded weights give about what the float ones give.
    want = _logits(original).numpy()[MASK == 1]
    assert np.abs(ours[MASK == 1] - want).mean() < 0.5 * np.abs(want).mean()


def test_the_graph_has_one_table_for_words_and_head(masked: Path, tmp_path: Path) -> None:
    compress_model(masked, tmp_path / "out", recipe="ptq-w4a8", task="fill-mask")
    export_onnx(tmp_path / "out", tmp_path / "onnx")
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.manifest is not None
    (tied,) = checkpoint.manifest.tied.values()
    rows = [row for row in ledger(tmp_path / "onnx").rows if row.shape[:1] == (checkpoint.adapter.config.vocab_size,)]
    matrices = [row for row in rows if len(row.shape) == 2]
    assert len(matrices) == 1
    assert matrices[0].tensor == tied.table


def test_a_bias_is_read_under_either_name(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForMaskedLM", num_hidden_layers=1)
    want = _logits(load_checkpoint(source, task="fill-mask").model)
    stored = load_file(source / "model.safetensors")
    names = ("cls.predictions.bias", "cls.predictions.decoder.bias")
    (found,) = [name for name in names if name in stored]
    (other,) = [name for name in names if name not in stored]
    renamed = _copy(source, tmp_path / "renamed")
    _rewrite(renamed, lambda tensors: tensors.update({other: tensors.pop(found)}))
    assert torch.equal(_logits(load_checkpoint(renamed, task="fill-mask").model), want)
    both = _copy(source, tmp_path / "both")
    _rewrite(both, lambda tensors: tensors.update({other: tensors[found].clone()}))
    assert torch.equal(_logits(load_checkpoint(both, task="fill-mask").model), want)
    _rewrite(both, lambda tensors: tensors.update({other: tensors[found] + 1}))
    with pytest.raises(FormatError, match=r"'cls\.predictions\.bias' and 'cls\.predictions\.decoder\.bias' with diff"):
        load_checkpoint(both, task="fill-mask")
    _rewrite(both, lambda tensors: [tensors.pop(name) for name in names])
    with pytest.raises(FormatError, match=r"lacks tensor 'cls\.predictions\.bias'"):
        load_checkpoint(both, task="fill-mask")


def test_a_model_whose_head_has_a_matrix_of_its_own(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForMaskedLM", num_hidden_layers=1, tie_word_embeddings=False)
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8", task="fill-mask")
    again = load_checkpoint(tmp_path / "out")
    assert again.adapter.tied_names == {}
    ours = TorchEncoder(again.model, again.adapter)(IDS, MASK)["logits"]
    want = _logits(load_checkpoint(source, task="fill-mask").model).numpy()
    assert np.abs(ours - want)[MASK == 1].mean() < 0.1 * np.abs(want)[MASK == 1].mean()


def test_a_tied_bias_that_is_not_stored_is_named(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    compress_model(make_bert("BertForMaskedLM"), tmp_path / "out", recipe="ptq-w8a8", task="fill-mask")
    _rewrite(tmp_path / "out", lambda tensors: tensors.pop("cls.predictions.decoder.bias"))
    with pytest.raises(FormatError, match=r"lacks tensor 'cls\.predictions\.decoder\.bias', which config\.json"):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    "architecture", ["BertForTokenClassification", "BertForQuestionAnswering", "GPT2ForSequenceClassification"]
)
def test_other_heads_are_compressed_and_loaded_again(
    architecture: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    labels = {} if architecture.endswith("Answering") else {"num_labels": 3}
    source = (make_gpt2 if architecture.startswith("GPT2") else make_bert)(architecture, **labels)
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    again = load_checkpoint(tmp_path / "out")
    assert again.adapter.architecture == architecture
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [architecture]
    original = load_checkpoint(source)
    found = TorchEncoder(again.model, again.adapter)(IDS, MASK)
    for name, want in TorchEncoder(original.model, original.adapter)(IDS, MASK).items():
        assert np.abs(found[name] - want).mean() < 0.2 * np.abs(want).mean()


def test_an_unnamed_head_is_not_guessed_among_several(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """Labels of texts and of tokens are stored under the same names."""
    folder = _copy(make_bert("BertForTokenClassification", num_labels=3), tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"--task.*feature-extraction.*text-classification.*token-classification"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, task="token-classification").adapter.task == "tag"


def test_what_a_model_counts_for_itself_is_there_after_loading(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """Positions are stored nowhere; where memory was not cleared they could be any numbers."""
    compress_model(make_bert(), tmp_path / "out", recipe="ptq-w8a8")
    rubbish = [torch.full((64, 64), 7) for _ in range(64)]  # what a buffer that nobody fills would find
    del rubbish
    embeddings = load_checkpoint(tmp_path / "out").model.embeddings
    assert embeddings.position_ids.tolist() == [list(range(37))]
    assert not bool(embeddings.token_type_ids.any())
