"""Keys of config.json: those that mean nothing pass, those that an adapter does not know are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from edgeq.errors import UnsupportedError
from edgeq.models import adapter_for

GOOGLE = {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        GOOGLE,
        {"gradient_checkpointing": False, "classifier_dropout": 0.2, "finetuning_task": "sst2", "use_cache": False},
        {"_name_or_path": "someone/model", "max_length": 20, "output_past": True, "torch_dtype": "float32"},
    ],
)
def test_what_changes_no_result_is_accepted(values: dict[str, Any]) -> None:
    adapter_for(transformers.BertConfig(architectures=["BertModel"], **values))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (transformers.BertConfig(architectures=["BertModel"], rotary_value=True), "BERT with rotary_value = True"),
        (transformers.BertConfig(architectures=["BertModel"], auto_map={"AutoModel": "x.Y"}), "with auto_map"),
        (transformers.BertConfig(architectures=["BertModel"], pruned_heads={0: [1]}), "with pruned_heads"),
        (transformers.BertConfig(architectures=["BertModel"], **{**GOOGLE, "directionality": "ltr"}), "directionality"),
        (transformers.RobertaConfig(architectures=["RobertaModel"], adapters=[1]), "RoBERTa with adapters"),
        (transformers.DistilBertConfig(architectures=["DistilBertModel"], experts=4), "DistilBERT with experts = 4"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        adapter_for(config)
    assert "\n" not in str(caught.value)
