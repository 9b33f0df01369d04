"""What a run says that it took from the model's folder, and from which file."""

import json

import pytest

from edgeq.checkpoint import read_adapter
from edgeq.deploy.taken import taken_from
from edgeq.report.text import taken_lines
from edgeq.results import Taken

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}


def rows(folder):
    return {row.what: (row.value, row.file) for row in taken_from(folder, read_adapter(folder))}


def write(path, table):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table), encoding="utf-8")


def test_a_plain_encoder_is_taken_by_default(make_bert):
    found = rows(make_bert(**SMALL))
    assert found == {
        "pooling": ("the mean of the tokens, as sentence-transformers does with a plain model",
                    "default (no modules.json)"),
        "normalisation": ("none", "default (no modules.json)"),
        "prompt": ("none", "default (no config_sentence_transformers.json)"),
        "limit": ("37 tokens; longer texts are refused", "config.json"),
    }  # fmt: skip


def test_a_sentence_folder_says_where(make_bert):
    folder = make_bert(**SMALL)
    kind = "sentence_transformers.models."
    modules = [("", "Transformer"), ("pool", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    write(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)],
    )
    (folder / "3_Normalize").mkdir()
    write(folder / "pool/config.json", {"pooling_mode": ["cls", "max"], "include_prompt": False})
    write(folder / "2_Dense/config.json", {"in_features": 48, "out_features": 10, "bias": True,
                                           "activation_function": "torch.nn.modules.activation.Tanh"})  # fmt: skip
    settings = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query", "truncate_dim": 8}
    write(folder / "config_sentence_transformers.json", {**settings, "similarity_fn_name": "dot"})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": True})
    write(folder / "tokenizer_config.json", {"truncation_side": "left", "model_max_length": 30})
    assert rows(folder) == {
        "pooling": ("the first token and the maximum over the tokens, without those of the prompt", "pool/config.json"),
        "dense layer": ("48 to 10, tanh", "2_Dense/config.json"),
        "normalisation": ("to length 1", "modules.json"),
        "dimensions": ("the first 8", "config_sentence_transformers.json"),
        "similarity": ("dot", "config_sentence_transformers.json"),
        "prompt": ("query by default, of query 'query: '", "config_sentence_transformers.json"),
        "limit": ("20 tokens; longer texts are cut on the left", "sentence_bert_config.json"),
        "case": ("texts are lower-cased first", "sentence_bert_config.json"),
    }


@pytest.mark.parametrize(
    ("config", "value", "file"),
    [
        ({"num_labels": 3}, "the softmax of all logits", "config.json (no problem_type, 3 labels)"),
        ({"num_labels": 1}, "the sigmoid of each logit", "config.json (no problem_type, 1 label)"),
        ({"num_labels": 1, "problem_type": "regression"}, "the model's own numbers",
         "config.json (problem_type 'regression')"),
    ],
)  # fmt: skip
def test_scores_follow_the_configuration(make_bert, config, value, file):
    folder = make_bert("BertForSequenceClassification", **config, **SMALL)
    write(folder / "tokenizer_config.json", {"model_max_length": 30})
    found = rows(folder)
    assert found["scores"] == (value, file)
    assert found["limit"] == ("30 tokens; longer texts are refused", "tokenizer_config.json")


def test_settings_of_generation(make_gpt2, make_bart):
    folder = make_gpt2()
    write(folder / "generation_config.json", {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.2})
    found = rows(folder)
    drawn = "drawn by chance (temperature 0.7, top_k 50, top_p 1), repetition_penalty 1.2"
    assert found["generation"] == (drawn, "generation_config.json")
    assert found["limit"] == ("33 tokens; of prompt and new text together", "config.json")
    folder = make_bart()
    write(folder / "generation_config.json", {"decoder_start_token_id": 2, "num_beams": 4, "max_length": 30})
    assert rows(folder)["generation"] == ("beam search with 4 beams, max_length 30", "generation_config.json")


def test_lines_for_the_terminal():
    taken = [Taken("pooling", "the first token", "1_Pooling/config.json")]
    assert taken_lines(taken) == ["pooling:       the first token (1_Pooling/config.json)"]
    assert taken_lines([]) == []
