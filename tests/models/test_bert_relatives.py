"""RoBERTa and DistilBERT: the same blocks as BERT's under other names, other positions, no token types."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from torch import nn

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.deploy.run import deploy
from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.exporter import export_onnx
from edgeq.models import TorchEncoder, adapter_for
from edgeq.recipes import TrainingRequest

ARCHITECTURES = [
    "RobertaModel",
    "RobertaForSequenceClassification",
    "DistilBertModel",
    "DistilBertForSequenceClassification",
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, make_bert_relative: Callable[..., Path]) -> Path:
    return make_bert_relative(request.param, seed=3)


def _load(folder: Path) -> Any:
    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    return getattr(transformers, name).from_pretrained(folder).eval()


def _batch() -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 80, (3, 11))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, 1:] = 0
    return np.where(mask, ids, 1), mask


def test_the_adapter_names_every_layer(folder: Path) -> None:
    model = _load(folder)
    adapter = adapter_for(model)
    modules = dict(model.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    tables = {name for name, module in modules.items() if isinstance(module, nn.Embedding)}
    assert set(adapter.linear_names) == linears
    assert len(adapter.linear_names) == len(linears)
    assert set(adapter.embedding_names) == tables
    assert all(name in modules for name in adapter.layer_names)
    [stack] = adapter.stacks
    assert stack.depth == 2
    assert all(f"{stack.block(1)}.{name}" in modules for tap in stack.attentions for name in (tap.query, tap.key))
    assert adapter.max_positions == (37 if adapter.family == "roberta" else 39)


def test_the_export_module_computes_what_the_model_computes(folder: Path) -> None:
    model = _load(folder)
    adapter = adapter_for(model)
    ids, mask = _batch()
    got = TorchEncoder(model, adapter)(ids, mask)[adapter.output_names[0]]
    with torch.no_grad():
        output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    want = output[adapter.output_names[0]].numpy()
    seen = mask.astype(bool) if got.ndim == 3 else slice(None)  # nobody reads the states of padding
    np.testing.assert_allclose(got[seen], want[seen], atol=1e-5)


def test_the_exported_file_at_every_length(folder: Path, tmp_path: Path) -> None:
    compress_model(folder, tmp_path / "checkpoint", recipe="ptq-w4")
    export_onnx(tmp_path / "checkpoint", tmp_path / "onnx")
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    model = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False)
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask"]
    encode = TorchEncoder(checkpoint.model, checkpoint.adapter)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    for batch, length in ((1, 1), (2, 13), (1, checkpoint.adapter.max_positions)):
        ids = np.random.default_rng(length).integers(5, 80, (batch, length))
        mask = np.ones_like(ids)
        mask[-1, max(1, length - 3) :] = 0
        want = encode(ids, mask)
        got = session.run(list(want), {"input_ids": ids, "attention_mask": mask})
        for found, wanted in zip(got, want.values(), strict=True):
            np.testing.assert_allclose(found, wanted, atol=5e-5)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "Classification" in name])
def test_a_recipe_that_trains(make_bert_relative: Callable[..., Path], name: str, tmp_path: Path) -> None:
    data = tmp_path / "train.tsv"
    data.write_text("sentence\tlabel\n" + "good movie\t1\nlazy movie\t0\n" * 4)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text("extends = 'xtc-l12-w2a8'\n[layers]\nkeep = [1]\n[training]\nbatch_size = 4\nmax_length = 16\n")
    request = TrainingRequest(train_data=data, eval_data=data, epochs=1)
    compress_model(make_bert_relative(name), tmp_path / "out", recipe=recipe, training=request)
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.adapter.stacks[0].depth == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [ARCHITECTURES[0], ARCHITECTURES[3]])
def test_all_stages_agree(make_bert_relative: Callable[..., Path], name: str, tmp_path: Path) -> None:
    result = deploy(make_bert_relative(name), tmp_path / "run", recipe="ptq-w8a8", rounds=4, sequence=16)
    assert result.passed


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            transformers.RobertaConfig(architectures=["RobertaModel"], hidden_act="mish"),
            UnsupportedError,
            "RoBERTa with activation 'mish'",
        ),
        (
            transformers.RobertaConfig(architectures=["RobertaModel"], pad_token_id=511),
            FormatError,
            r"pad_token_id must be in 0\.\.510, found 511",
        ),
        (
            transformers.DistilBertConfig(architectures=["DistilBertModel"], activation="mish"),
            UnsupportedError,
            "DistilBERT with activation 'mish'",
        ),
        (
            transformers.DistilBertConfig(architectures=["DistilBertModel"], n_heads=5),
            FormatError,
            "dim must be a multiple of n_heads, found 768 and 5",
        ),
    ],
)
def test_what_is_refused(config: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        adapter_for(config)
