"""Heads for tokens, answers, masks and texts: layers are named, and graphs compute what transformers computes."""

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
from transformers.pytorch_utils import Conv1D

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.formats.tasks import PIPELINES, TASKS, task_of_class
from edgeq.models import TorchEncoder, adapter_for
from edgeq.models.registry import supported_families

ENCODERS = (
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert"),
    *("mpnet", "modernbert", "deberta-v2"),
)
HEADS = [
    name
    for family in ENCODERS
    for name, task in supported_families()[family].items()
    if task in ("tag", "answer", "fill")
]
CLASSIFIERS = [
    *("GPT2ForSequenceClassification", "OPTForSequenceClassification"),
    *("LlamaForSequenceClassification", "Qwen2ForSequenceClassification", "BartForSequenceClassification"),
    "GPTNeoXForSequenceClassification",
]
EXPORTED = (
    *("BertForTokenClassification", "RobertaForQuestionAnswering", "DistilBertForMaskedLM", "AlbertForMaskedLM"),
    *("GPT2ForSequenceClassification", "LlamaForSequenceClassification", "BartForSequenceClassification"),
)
"""One for each way in which a graph is made; the others are slow tests."""
SIZES = {
    "DistilBert": {"dim": 24, "n_layers": 1, "n_heads": 2, "hidden_dim": 36},
    "GPT2": {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_inner": 36, "n_positions": 33},
    "OPT": {
        **{"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"ffn_dim": 36, "word_embed_proj_dim": 24},
    },
    "Bart": {
        **{"d_model": 24, "encoder_layers": 1, "decoder_layers": 1},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 36, "decoder_ffn_dim": 36},
    },
}
BERT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 36}
SIZES["GPTNeoX"] = BERT | {"rotary_pct": 0.5}
SIZES["DebertaV2"] = BERT | {"relative_attention": True, "share_att_key": True, "pos_att_type": ["c2p", "p2c"]}
VOCABULARY = 96


def make(architecture: str, **config: Any) -> transformers.PreTrainedModel:
    """Returns a random model with the padding id 1."""
    family = architecture.partition("For")[0]
    sizes = SIZES.get(family, BERT) | ({"num_key_value_heads": 1} if family in ("Llama", "Qwen2") else {})
    sizes |= {"embedding_size": 16} if family in ("Electra", "Albert") else {}
    sizes |= {"num_labels": 5} if TASKS[task_of_class(architecture).name].has_labels else {}
    positions = {} if family == "GPT2" else {"max_position_embeddings": 40}
    cls = getattr(transformers, architecture)
    torch.manual_seed(0)
    model = cls(cls.config_class(**{"vocab_size": VOCABULARY, "pad_token_id": 1, **positions, **sizes, **config}))
    with torch.no_grad():  # fresh models have equal biases and norms, which would hide mix-ups
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.eval()
    return model


def batch(model: transformers.PreTrainedModel, *, left: bool = False) -> dict[str, np.ndarray]:
    """Returns texts of 11, 6 and 2 tokens, padded behind or in front; BART's end with its end."""
    ids = np.random.default_rng(0).integers(5, VOCABULARY, (3, 11))
    lengths = np.array([11, 6, 2])[:, None]
    places = np.arange(11)[None]
    mask = (places >= 11 - lengths if left else places < lengths).astype(np.int64)
    ids[mask == 0] = 1
    if model.config.is_encoder_decoder:
        ids[np.arange(3), lengths[:, 0] - 1] = model.config.eos_token_id
    return {"input_ids": ids, "attention_mask": mask}


def wanted(model: transformers.PreTrainedModel, given: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Returns what transformers gives, without the places of padding."""
    with torch.no_grad():
        output = model(**{key: torch.from_numpy(value) for key, value in given.items()})[name].numpy()
    return without_padding(output, given["attention_mask"])


def without_padding(output: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return output[mask == 1] if output.shape[:2] == mask.shape else output


@pytest.mark.parametrize("architecture", [*HEADS, *CLASSIFIERS])
def test_every_layer_is_named_and_the_module_computes_what_transformers_computes(architecture: str) -> None:
    model = make(architecture)
    adapter, modules = adapter_for(model), dict(model.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)}
    assert set(adapter.linear_names) == linears
    assert len(adapter.linear_names) == len(linears)
    assert set(adapter.embedding_names) == {name for name, m in modules.items() if isinstance(m, nn.Embedding)}
    assert all(modules[name].weight is modules[table].weight for name, table in adapter.tied_names.items())
    assert all(name in modules for name in adapter.layer_names)
    assert adapter.task == task_of_class(architecture).name
    for left in (False, True):
        if left and architecture.startswith("Bart"):
            continue  # its positions count from the left
        given = batch(model, left=left)
        outputs = TorchEncoder(model, adapter)(**given)
        assert list(outputs) == adapter.output_names == list(TASKS[adapter.task].outputs)
        for name, value in outputs.items():
            found = without_padding(value, given["attention_mask"])
            np.testing.assert_allclose(found, wanted(model, given, name), atol=2e-5)


@pytest.mark.parametrize(
    "architecture",
    [name if name in EXPORTED else pytest.param(name, marks=pytest.mark.slow) for name in [*HEADS, *CLASSIFIERS]],
)
def test_the_graph_computes_what_transformers_computes(
    architecture: str, save_byte_tokenizer: Callable[[Path], None], tmp_path: Path
) -> None:
    model = make(architecture)
    model.save_pretrained(tmp_path / "model")
    save_byte_tokenizer(tmp_path / "model")
    task = TASKS[task_of_class(architecture).name].pipelines[0]
    export_onnx(tmp_path / "model", tmp_path / "onnx", task=task)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    inputs = {value.name for value in session.get_inputs()}
    given = batch(model)
    feed = given | {"token_type_ids": np.zeros_like(given["input_ids"])}
    outputs = session.run(None, {name: value for name, value in feed.items() if name in inputs})
    names = [value.name for value in session.get_outputs()]
    assert names == list(TASKS[task_of_class(architecture).name].outputs)
    for name, value in zip(names, outputs, strict=True):
        found = without_padding(value, given["attention_mask"])
        np.testing.assert_allclose(found, wanted(model, given, name), atol=2e-5)


def test_a_text_of_padding_alone_is_labelled_by_its_first_token() -> None:
    model = make("GPT2ForSequenceClassification")
    given = {"input_ids": np.ones((2, 3), np.int64), "attention_mask": np.ones((2, 3), np.int64)}
    found = TorchEncoder(model, adapter_for(model))(**given)["logits"]
    np.testing.assert_allclose(found, wanted(model, given, "logits"), atol=1e-5)


def test_without_a_padding_token_the_mask_says_where_a_text_ends() -> None:
    model = make("GPT2ForSequenceClassification", pad_token_id=None)
    given = batch(model)
    found = TorchEncoder(model, adapter_for(model))(**given)["logits"]
    for row, length in enumerate(given["attention_mask"].sum(axis=1)):
        alone = {name: value[row : row + 1, :length] for name, value in given.items()}
        np.testing.assert_allclose(found[row], wanted(model, alone, "logits")[0], atol=1e-5)


def test_what_a_class_is_for_follows_from_its_name() -> None:
    names = {
        "BertModel": "embed",
        "BertForSequenceClassification": "classify",
        "BertForTokenClassification": "tag",
        "BertForQuestionAnswering": "answer",
        "BertForMaskedLM": "fill",
        "GPT2LMHeadModel": "generate",
        "LlamaForCausalLM": "generate",
        "BartForConditionalGeneration": "seq2seq",
        "MarianMTModel": "seq2seq",
    }
    assert {name: task_of_class(name).name for name in names} == names
    assert all(PIPELINES[name].name == task for name, task in (("ner", "tag"), ("reranking", "classify")))


def test_tasks_choose_the_head_of_a_configuration() -> None:
    config = transformers.BertConfig(architectures=["BertForMaskedLM"])
    assert adapter_for(config).architecture == "BertModel"
    assert adapter_for(config, exact=True).architecture == "BertForMaskedLM"
    for task, architecture in (
        ("fill-mask", "BertForMaskedLM"),
        ("token-classification", "BertForTokenClassification"),
        ("question-answering", "BertForQuestionAnswering"),
    ):
        assert adapter_for(config, task).architecture == architecture
    gpt2 = transformers.GPT2Config(architectures=["GPT2LMHeadModel"], num_labels=1)
    assert adapter_for(gpt2, "reranking").architecture == "GPT2ForSequenceClassification"
    with pytest.raises(UsageError, match="no task 'fillmask'; did you mean 'fill-mask'"):
        adapter_for(config, "fillmask")
    with pytest.raises(UnsupportedError, match="reranking gives one number, and BertForSequenceClassification has 3"):
        adapter_for(transformers.BertConfig(num_labels=3), "reranking")


def test_a_head_that_does_not_fit_is_refused() -> None:
    config = transformers.BertConfig(architectures=["BertForQuestionAnswering"], num_labels=3)
    with pytest.raises(FormatError, match="2 logits a token, found num_labels = 3"):
        adapter_for(config)
    config = transformers.BertConfig(architectures=["BertForTokenClassification"], id2label={1: "a", 2: "b"})
    with pytest.raises(FormatError, match="id2label must number labels from 0"):
        adapter_for(config)
    config = transformers.BartConfig(architectures=["BartForSequenceClassification"], eos_token_id=None)
    with pytest.raises(FormatError, match=r"eos_token_id must be in 0\.\.50264, found None"):
        adapter_for(config)
