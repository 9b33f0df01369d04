import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import TorchEncoder, adapter_for, supported_architectures


def _config(**values: Any) -> transformers.BertConfig:
    return transformers.BertConfig(**{"architectures": ["BertModel"], **values})


@pytest.fixture(scope="module", params=["BertModel", "BertForSequenceClassification"])
def model(request: pytest.FixtureRequest, make_bert: Callable[..., Path]) -> transformers.PreTrainedModel:
    cls = getattr(transformers, request.param)
    return cls.from_pretrained(make_bert(request.param, num_labels=3)).eval()


def _batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 80, (3, 11))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, 1:] = 0
    types = rng.integers(0, 2, ids.shape)
    return ids, mask, types


def test_the_adapter_names_every_layer(model: transformers.PreTrainedModel) -> None:
    adapter = adapter_for(model)
    modules = dict(model.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    tables = {name for name, module in modules.items() if isinstance(module, nn.Embedding)}
    assert set(adapter.linear_names) == linears
    assert len(adapter.linear_names) == len(linears)
    assert set(adapter.embedding_names) == tables
    assert all(name in modules for name in adapter.layer_names)
    assert adapter.max_positions == 37


def test_model_and_config_give_the_same_adapter(model: transformers.PreTrainedModel) -> None:
    config = type(model.config)(**{**model.config.to_dict(), "architectures": [type(model).__name__]})
    assert adapter_for(config).linear_names == adapter_for(model).linear_names
    assert adapter_for(config).task == adapter_for(model).task


def test_the_export_module_computes_what_the_model_computes(model: transformers.PreTrainedModel) -> None:
    adapter = adapter_for(model)
    ids, mask, types = _batch()
    outputs = TorchEncoder(model, adapter)(ids, mask, types)
    assert list(outputs) == adapter.output_names
    with torch.no_grad():
        expected = model(*(torch.from_numpy(a) for a in (ids, mask, types)))[adapter.output_names[0]]
    np.testing.assert_allclose(outputs[adapter.output_names[0]], expected.numpy(), atol=1e-5)


def test_padding_does_not_reach_the_answer(model: transformers.PreTrainedModel) -> None:
    adapter = adapter_for(model)
    encode = TorchEncoder(model, adapter)
    ids, mask, types = _batch()
    alone = encode(ids[1:2, :6], mask[1:2, :6], types[1:2, :6])[adapter.output_names[0]]
    padded = encode(ids, mask, types)[adapter.output_names[0]][1]
    np.testing.assert_allclose(padded if padded.ndim == 1 else padded[:6], alone[0], atol=1e-5)


def test_tasks_inputs_outputs_and_labels() -> None:
    embed = adapter_for(_config())
    assert (embed.family, embed.task, embed.labels) == ("bert", "embed", [])
    assert embed.input_names == ["input_ids", "attention_mask", "token_type_ids"]
    assert embed.output_names == ["last_hidden_state"]
    classify = adapter_for(
        _config(architectures=["BertForSequenceClassification"], id2label={0: "bad", 1: "good", 2: "odd"})
    )
    assert (classify.task, classify.labels, classify.output_names) == (
        "classify",
        ["bad", "good", "odd"],
        ["logits"],
    )


def test_other_families_are_named_together_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="'t5'") as caught:
        adapter_for(transformers.T5Config(architectures=["T5Model"]))
    assert all(name in str(caught.value) for name in supported_architectures())


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (transformers.GPT2Config(architectures=["GPT2DoubleHeadsModel"]), "GPT2LMHeadModel"),
        (transformers.BertConfig(architectures=["BertForMultipleChoice"]), "BertForSequenceClassification"),
        (transformers.RobertaConfig(architectures=["RobertaForMultipleChoice"]), "RobertaModel"),
    ],
)
def test_other_heads_are_named_together_with_the_known_ones(config: Any, found: str) -> None:
    with pytest.raises(UnsupportedError, match=config.architectures[0]) as caught:
        adapter_for(config)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (transformers.BertConfig(), "BertModel"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), "BertModel"),
        (transformers.GPT2Config(architectures=["GPT2Model"]), "GPT2LMHeadModel"),
        (transformers.BartConfig(architectures=None), "BartForConditionalGeneration"),
    ],
)
def test_the_default_of_a_family_is_what_its_adapter_lists_first(config: Any, architecture: str) -> None:
    assert adapter_for(config).architecture == architecture
    with pytest.raises(FormatError, match="'architectures' must be a list of names"):
        adapter_for(transformers.BertConfig(architectures="BertModel"))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"position_embedding_type": "alibi"}, "'alibi' positions"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_act": "mish"}, "BERT with activation 'mish'"),
        ({"add_cross_attention": True}, "decoder"),
    ],
)
def test_other_variants_are_refused(values: dict[str, Any], found: str) -> None:
    with pytest.raises(UnsupportedError, match=found):
        adapter_for(_config(**values))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"hidden_size": 100, "num_attention_heads": 12}, "100 and 12"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"max_position_embeddings": "many"}, "many"),
        ({"intermediate_size": 12.5}, "12.5"),
        ({"hidden_size": True}, "hidden_size"),
        ({"layer_norm_eps": "small"}, "small"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {1: "a", 2: "b"}}, "id2label"),
    ],
)
def test_impossible_sizes_are_refused(
    values: dict[str, Any], found: str, make_bert: Callable[..., Path]
) -> None:
    """Release 5 of transformers checks some of them itself, when the configuration is made."""
    path = make_bert() / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(FormatError, match=found):
        load_checkpoint(path.parent)
