"""Configurations of the encoders beside transformers: activations, positions, sizes of heads, masks of every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import nn

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UnsupportedError
from edgeq.export.exporter import export_onnx
from edgeq.models import TorchEncoder
from edgeq.models.activations import ACTIVATIONS, exportable_activation
from edgeq.models.transformers_release import RELEASE

RELATIVE = ["relative_key", "relative_key_query"]


def _batch(longest: int) -> dict[str, np.ndarray]:
    """A text of full length, one padded behind, one with holes, and one without any token."""
    ids = np.random.default_rng(0).integers(5, 80, (4, longest))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, [1, 2, 5]] = 0
    mask[3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _check(folder: Path, out: Path | None) -> None:
    """Compares the exported graph, and what it is traced from, with transformers, at the longest and a short length.

    Args:
        folder: The checkpoint.
        out: Where the graph goes; None leaves it out.
    """
    checkpoint = load_checkpoint(folder)
    name = checkpoint.adapter.output_names[0]
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    session = None
    if out is not None:
        export_onnx(folder, out)
        session = onnxruntime.InferenceSession(out / "model.onnx")
    for length in (7, checkpoint.adapter.max_positions):
        given = _batch(length)
        with torch.no_grad():
            want = model(**{key: torch.from_numpy(array) for key, array in given.items()})[name].numpy()
        if "token_type_ids" in checkpoint.adapter.input_names:
            given["token_type_ids"] = np.zeros_like(given["input_ids"])
        if session is not None:
            got = session.run(None, given)[0]  # encoders give an embedding as well
            np.testing.assert_allclose(got, want, atol=2e-5)
        same = next(iter(TorchEncoder(checkpoint.model, checkpoint.adapter)(**given).values()))
        np.testing.assert_allclose(same, want, atol=2e-5)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_that_of_transformers(name: str) -> None:
    x = torch.linspace(-9, 9, 1001)
    torch.testing.assert_close(ACTIVATIONS[name](x), transformers.activations.ACT2FN[name](x), atol=3e-6, rtol=3e-6)


class _Exported(nn.Module):
    """Every activation, as a model of transformers holds it when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        theirs = {name: transformers.activations.ACT2FN[name] for name in sorted(ACTIVATIONS)}
        self.parts = nn.ModuleList(exportable_activation(module) or module for module in theirs.values())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part(x) for part in self.parts)


def test_every_activation_is_exported(tmp_path: Path) -> None:
    x = torch.linspace(-9, 9, 1001)
    torch.onnx.export(_Exported().eval(), (x,), tmp_path / "model.onnx", dynamo=True, opset_version=23, verbose=False)
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x.numpy()})
    for name, got in zip(sorted(ACTIVATIONS), found, strict=True):
        want = transformers.activations.ACT2FN[name](x).numpy()
        np.testing.assert_allclose(got, want, atol=3e-6, rtol=3e-6, err_msg=name)


@pytest.mark.parametrize("act", ["relu", "gelu_new", "silu", "tanh", "quick_gelu"])
def test_activations_of_bert(make_bert: Callable[..., Path], act: str, tmp_path: Path) -> None:
    """The graph of one, and what the others are exported from."""
    folder = make_bert(hidden_act=act, num_hidden_layers=1)
    _check(folder, tmp_path / "onnx" if act == "gelu_new" else None)


@pytest.mark.parametrize("kind", RELATIVE)
def test_positions_by_distance(make_bert: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    folder = make_bert(position_embedding_type=kind, num_attention_heads=2, num_hidden_layers=1)
    if RELEASE >= 5:
        with pytest.raises(UnsupportedError, match=f"'{kind}' positions is not computed by transformers 5"):
            load_checkpoint(folder)
        return
    _check(folder, tmp_path / "onnx")


@pytest.mark.parametrize("values", [{"num_attention_heads": 8}, {"num_attention_heads": 1}, {"type_vocab_size": 1}])
def test_sizes_of_heads_and_one_token_type(
    make_bert: Callable[..., Path], values: dict[str, Any], tmp_path: Path
) -> None:
    _check(make_bert(**values, num_hidden_layers=1), tmp_path / "onnx")


def test_an_activation_of_distilbert(make_bert_relative: Callable[..., Path], tmp_path: Path) -> None:
    _check(make_bert_relative("DistilBertModel", activation="gelu_new", n_layers=1), tmp_path / "onnx")


def test_the_model_itself_keeps_its_parts(make_bert: Callable[..., Path]) -> None:
    """Training and saving go on with the modules of transformers; only the exported one has others."""
    by_distance = {"position_embedding_type": "relative_key"} if RELEASE < 5 else {}
    checkpoint = load_checkpoint(make_bert(hidden_act="gelu_new", **by_distance))
    exported = checkpoint.adapter.export_module(checkpoint.model)
    layer, other = checkpoint.model.encoder.layer[0], exported.model.encoder.layer[0]
    assert type(layer.intermediate.intermediate_act_fn).__name__ == "NewGELUActivation"
    assert type(other.intermediate.intermediate_act_fn).__name__ == "NamedActivation"
    assert other.attention.self.query is layer.attention.self.query
    assert other.output.LayerNorm.weight is layer.output.LayerNorm.weight
