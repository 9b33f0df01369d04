"""Sentence embeddings in the exported graph, against sentence-transformers' arithmetic written out text by text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from edgeq.errors import FormatError
from edgeq.formats.sentence_model import POOLING_MODES, Pooling, SentenceModel, read_sentence_model
from edgeq.models.sentence import SentenceHead, copy_module_weights

WIDTH = 6


def _pooled(mode: str, states: np.ndarray, mask: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """One text: ``[tokens, width]`` states, which tokens are no padding, and which of them count."""
    places = np.flatnonzero(mask & kept)
    if mode in ("cls", "lasttoken"):
        return states[places[0 if mode == "cls" else -1]]
    if mode == "max":
        return states[places].max(axis=0)
    weights = np.ones(len(places))
    if mode == "weightedmean":
        weights = places - np.flatnonzero(mask)[0] + 1.0
    total = (states[places] * weights[:, None]).sum(axis=0)
    return total / (np.sqrt(weights.sum()) if mode == "mean_sqrt_len_tokens" else weights.sum())


MASKS = {
    "padding behind": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
    "padding before": [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]],
    "a hole": [[1, 1, 0, 1, 1], [1, 0, 1, 1, 0]],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLING_MODES), ("mean", "cls"), POOLING_MODES])
@pytest.mark.parametrize("prompt", [0, 2])
def test_pooling(modes: tuple[str, ...], mask: list[list[int]], prompt: int) -> None:
    states = np.random.default_rng(3).standard_normal((2, 5, WIDTH)).astype(np.float32)
    attention = np.array(mask, np.int64)
    kept = np.ones_like(attention)
    kept[:, :prompt] = 0
    if mask == MASKS["padding before"]:
        kept[1, : 2 + prompt] = 0
    model = SentenceModel(Path(), Path(), pooling=Pooling(modes, include_prompt=False), prompts={"q": "find"})
    head = SentenceHead(model, width=WIDTH)
    assert head.reads_pooling_mask
    with torch.no_grad():
        found = head(*map(torch.from_numpy, (states, attention, kept))).numpy()
    for row in range(2):
        parts = [_pooled(mode, states[row].astype(np.float64), attention[row] > 0, kept[row] > 0) for mode in modes]
        np.testing.assert_allclose(found[row], np.concatenate(parts), rtol=1e-5, atol=1e-6)


def _folder(folder: Path, modules: list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]], **settings: Any) -> Path:
    kinds = [("Transformer", ""), ("Pooling", "pooled"), *((kind, f"{i}_x") for i, (kind, _, _) in enumerate(modules))]
    table = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(table))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    for path, config in [("pooled", {"pooling_mode": "mean", "embedding_dimension": WIDTH}), *(
        (f"{i}_x", config) for i, (_, config, _) in enumerate(modules)
    )]:  # fmt: skip
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
    for i, (_, _, tensors) in enumerate(modules):
        if tensors:
            save_file(tensors, folder / f"{i}_x" / "model.safetensors")
    return folder


def test_modules_behind_the_pooling(tmp_path: Path) -> None:
    w, b, r = torch.randn(4, WIDTH), torch.randn(4), torch.randn(4, WIDTH)
    gamma, beta = torch.randn(4), torch.randn(4)
    activation = "torch.nn.modules.activation.GELU"
    dense = {"in_features": WIDTH, "out_features": 4, "activation_function": activation, "use_residual": True}
    plain = {"in_features": 4, "out_features": 4, "bias": False, "activation_function": "torch.nn.Identity"}
    source = tmp_path / "source"
    source.mkdir()
    _folder(
        source,
        [
            ("Dense", dense, {"linear.weight": w, "linear.bias": b, "residual.weight": r}),
            ("LayerNorm", {"dimension": 4}, {"norm.weight": gamma, "norm.bias": beta}),
            ("Dropout", {"dropout": 0.5}, {}),
            ("Dense", plain, {"linear.weight": w[:, :4].contiguous()}),
            ("Normalize", {}, {}),
        ],
        truncate_dim=3,
    )
    sentence = read_sentence_model(source)
    head = SentenceHead(sentence, width=WIDTH)
    states, mask = torch.randn(2, 3, WIDTH), torch.ones(2, 3, dtype=torch.int64)
    x = states.mean(dim=1)
    x = functional.gelu(x @ w.T + b) + x @ r.T
    x = functional.layer_norm(x, (4,), gamma, beta) @ w[:, :4].T
    with torch.no_grad():
        torch.testing.assert_close(head(states, mask, None), functional.normalize(x)[:, :3])
    (tmp_path / "copy" / "0_x").mkdir(parents=True)
    (tmp_path / "copy" / "1_x").mkdir()
    (tmp_path / "copy" / "3_x").mkdir()
    copy_module_weights(sentence, tmp_path / "copy")
    assert sorted(p.parent.name for p in (tmp_path / "copy").rglob("*.safetensors")) == ["0_x", "1_x", "3_x"]


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"in_features": 5, "out_features": 2}, {}, "is for vectors of 5 numbers, the module before it makes 6"),
        ({"in_features": WIDTH, "out_features": 2}, {}, "holds neither model.safetensors nor pytorch_model.bin"),
        ({"in_features": WIDTH, "out_features": 2}, {"linear.weight": torch.ones(2, WIDTH)}, "asks for tensors"),
        (
            {"in_features": WIDTH, "out_features": 2, "bias": False},
            {"linear.weight": torch.full((2, WIDTH), float("nan"))},
            "'linear.weight' holds NaN",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=message):
        SentenceHead(read_sentence_model(_folder(tmp_path, [("Dense", config, tensors)])), width=WIDTH)


def test_the_pooling_must_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="for states of width 6, the model's have 8"):
        SentenceHead(read_sentence_model(_folder(tmp_path, [])), width=8)
