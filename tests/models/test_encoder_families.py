"""Each family of encoders: its layers are named, and its exported graph computes what transformers computes."""

from __future__ import annotations

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

from edgeq.backends.onnx_reference import OnnxReference
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UnsupportedError
from edgeq.export.exporter import export_onnx
from edgeq.models import adapter_for
from edgeq.models.transformers_release import RELEASE, in_words_of_release
from edgeq.recipes.layers import kept_layers

_ELECTRA_BY_DISTANCE = ("ElectraModel", {"position_embedding_type": "relative_key", "embedding_size": 40}, 39)
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "xlm-roberta": ("XLMRobertaModel", {"type_vocab_size": 1}, 37),
    "xlm-roberta, a classifier": ("XLMRobertaForSequenceClassification", {"num_labels": 3, "type_vocab_size": 1}, 37),
    "camembert": ("CamembertForSequenceClassification", {"hidden_act": "gelu_new", "type_vocab_size": 1}, 37),
    "electra": ("ElectraModel", {"embedding_size": 24}, 39),
    "electra, a classifier": ("ElectraForSequenceClassification", {"embedding_size": 40, "num_labels": 3}, 39),
    **({"electra, distances": _ELECTRA_BY_DISTANCE} if RELEASE < 5 else {}),  # which release 5 does not compute
    "albert": ("AlbertModel", {"embedding_size": 24, "num_hidden_layers": 3}, 39),
    "albert, groups": (
        "AlbertForSequenceClassification",
        {"embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2, "num_hidden_layers": 4},
        39,
    ),
    "mpnet": ("MPNetModel", {"hidden_act": "gelu_new"}, 37),
    "mpnet, a classifier": ("MPNetForSequenceClassification", {"num_labels": 3, "max_position_embeddings": 300}, 298),
    "deberta-v3": (
        "DebertaV2Model",
        {
            "relative_attention": True,
            "position_buckets": 6,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
        },
        39,
    ),
    "deberta-v2, a classifier": (
        "DebertaV2ForSequenceClassification",
        {
            "relative_attention": True,
            "max_relative_positions": 11,
            "pos_att_type": ["c2p", "p2c"],
            "type_vocab_size": 2,
            "embedding_size": 24,
            "num_labels": 3,
        },
        39,
    ),
    "modernbert": (
        "ModernBertModel",
        {"global_attn_every_n_layers": 2, "local_attention": 6, "num_hidden_layers": 3, "local_rope_theta": 100.0},
        39,
    ),
    "modernbert, a classifier": (
        "ModernBertForSequenceClassification",
        {"num_labels": 3, "local_attention": 5, "classifier_pooling": "mean", "norm_bias": True, "mlp_bias": True},
        39,
    ),
}
"""Class, configuration and longest text of each."""


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, make_encoder: Callable[..., Path]) -> tuple[Path, int]:
    architecture, config, longest = CASES[request.param]
    # Two layers in one of each family, and where every second one differs.
    one = "," in request.param and not request.param.startswith("modernbert")
    layers = {"num_hidden_layers": 1} if one or request.param == "camembert" else {}
    return make_encoder(architecture, **layers | config), longest


def test_a_family_from_its_checkpoint_to_its_graph(case: tuple[Path, int], tmp_path: Path) -> None:
    folder, longest = case
    checkpoint = load_checkpoint(folder)
    adapter, modules = checkpoint.adapter, dict(checkpoint.model.named_modules())
    assert len(set(adapter.linear_names)) == len(adapter.linear_names)
    assert set(adapter.linear_names) == {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    assert set(adapter.embedding_names) == {name for name, m in modules.items() if isinstance(m, nn.Embedding)}
    assert all(name in modules for name in adapter.layer_names)
    assert adapter.max_positions == longest
    export_onnx(folder, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    for length in (1, 9, longest):
        ids = np.random.default_rng(length).integers(5, 80, (3, length))
        mask = np.ones_like(ids)
        mask[1, max(1, length - 3) :] = 0
        mask[2, 2:4] = 0
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given = {name: given[name] for name in adapter.input_names}
        with torch.no_grad():
            output = checkpoint.model(**{name: torch.from_numpy(array) for name, array in given.items()})
        got = session.run(None, given)[0]  # encoders give an embedding as well
        np.testing.assert_allclose(got, output[adapter.output_names[0]].numpy(), atol=2e-5)
    # ONNX's own evaluator is a stage of parity, and does not compute all that ONNX Runtime computes.
    evaluated = OnnxReference(onnx.load(tmp_path / "onnx" / "model.onnx"))(given)[adapter.output_names[0]]
    np.testing.assert_allclose(evaluated, got, atol=2e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.AlbertConfig(architectures=["AlbertModel"], position_embedding_type="relative_key"),
            "ALBERT with 'relative_key' positions",
        ),
        (
            transformers.AlbertConfig(architectures=["AlbertModel"], num_hidden_layers=12, num_hidden_groups=5),
            "12 layers in 5 groups",
        ),
        (transformers.ElectraConfig(architectures=["ElectraModel"], is_decoder=True), "ELECTRA as a decoder"),
    ],
)
def test_what_is_refused(config: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        adapter_for(config)


def test_a_recipe_that_trains_is_refused_for_a_layer_that_runs_many_times() -> None:
    config = transformers.AlbertConfig(architectures=["AlbertModel"])
    with pytest.raises(UnsupportedError, match="AlbertModel runs one layer many times"):
        kept_layers(None, adapter_for(config))


def test_a_layer_that_runs_many_times_is_stored_once(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    few, many = (make_encoder("AlbertModel", embedding_size=24, num_hidden_layers=n) for n in (1, 2))
    sizes = []
    for folder in (few, many):
        export_onnx(folder, tmp_path / folder.name)
        sizes.append((tmp_path / folder.name / "model.onnx.data").stat().st_size)
    assert sizes[0] == sizes[1]


@pytest.mark.skipif(RELEASE >= 5, reason="release 5 of transformers reads its own words by itself")
def test_modernbert_in_the_words_of_release_5() -> None:
    local = {"rope_theta": 90.0, "rope_type": "default"}
    angles = {"full_attention": {"rope_theta": 400.0}, "sliding_attention": local}
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    values = {"model_type": "modernbert", "rope_parameters": angles, "layer_types": kinds}
    found = in_words_of_release(values)
    assert "rope_parameters" not in found
    assert (found["global_rope_theta"], found["local_rope_theta"]) == (400.0, 90.0)
    assert found["global_attn_every_n_layers"] == 3
    with pytest.raises(UnsupportedError, match="these layer_types needs release 5 of transformers"):
        in_words_of_release(values | {"layer_types": kinds[1:]})
    scaled = {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}
    with pytest.raises(UnsupportedError, match="of type 'yarn' needs release 5"):
        in_words_of_release(values | {"rope_parameters": scaled})
