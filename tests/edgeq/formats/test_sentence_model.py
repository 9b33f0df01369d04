"""What sentence-transformers keeps beside a model: every key is read, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.formats.sentence_model import (
    Dense,
    Normalize,
    Pooling,
    SentenceModel,
    copy_sentence_settings,
    read_sentence_model,
)

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _folder(
    folder: Path,
    *,
    transformer: str = "",
    pooling: Any = None,
    modules: tuple[Any, ...] = (),
    prefix: str = OLD,
    **files: Any,
) -> Path:
    table = [{"idx": 0, "name": "0", "path": transformer, "type": prefix + "Transformer"},
             {"idx": 1, "name": "1", "path": "1_Pooling", "type": prefix + "Pooling"}, *modules]  # fmt: skip
    _write(folder / "modules.json", table)
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True} if pooling is None else pooling)
    (folder / transformer).mkdir(exist_ok=True)
    for name, value in files.items():
        _write(folder / name.replace("__", "/").replace("_json", ".json"), value)
    return folder


def test_a_plain_folder_is_the_mean_of_its_states(tmp_path: Path) -> None:
    _write(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})  # nobody names it
    _write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 3})
    assert read_sentence_model(tmp_path) == SentenceModel(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        read_sentence_model(tmp_path / "none")


@pytest.mark.parametrize("prefix", [OLD, NEW])
@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"word_embedding_dimension": 8, "pooling_mode_cls_token": True}, Pooling(("cls",), width=8)),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, Pooling(("lasttoken",))),
        (
            {"pooling_mode_weightedmean_tokens": True, "pooling_mode_cls_token": True, "include_prompt": False},
            Pooling(("cls", "weightedmean"), include_prompt=False),
        ),
        ({"pooling_mode_mean_tokens": False}, Pooling(("mean",))),
        ({"embedding_dimension": 8, "pooling_mode": "max"}, Pooling(("max",), width=8)),
        ({"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True}, Pooling(("mean", "cls"))),
    ],
)
def test_pooling_of_old_and_new_releases(prefix: str, pooling: Any, expected: Pooling, tmp_path: Path) -> None:
    assert read_sentence_model(_folder(tmp_path, pooling=pooling, prefix=prefix)).pooling == expected


def test_everything_that_is_read(tmp_path: Path) -> None:
    dense = {
        "in_features": 8,
        "out_features": 4,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    modules = ({"path": "d", "type": OLD + "Dense"}, {"path": "n", "type": OLD + "Normalize"})
    folder = _folder(
        tmp_path,
        transformer="0_Transformer",
        modules=modules,
        d__config_json=dense,
        config_sentence_transformers_json={
            "__version__": {"pytorch": "2"}, "prompts": {"a": "x: ", "b": None}, "default_prompt_name": "a",
            "similarity_fn_name": "dot", "truncate_dim": 3, "model_type": "SentenceTransformer",
        },
    )  # fmt: skip
    _write(folder / "0_Transformer" / "sentence_roberta_config.json", {"max_seq_length": 9, "do_lower_case": True})
    model = read_sentence_model(folder)
    steps = (Dense(folder / "d", 8, 4, False, "identity", False), Normalize())
    assert model == SentenceModel(
        folder, folder / "0_Transformer", True, Pooling(), steps,
        dimensions=3, max_tokens=9, lower_case=True, prompts={"a": "x: ", "b": ""}, default_prompt="a",
        similarity="dot",
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    copy_sentence_settings(model, tmp_path / "out")
    copied = read_sentence_model(tmp_path / "out")
    assert copied.transformer == tmp_path / "out"
    assert (copied.max_tokens, copied.prompts, copied.pooling) == (9, model.prompts, model.pooling)


@pytest.mark.parametrize("settings", [
    {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings", "unpad_inputs": None,
     "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}},
    {"max_seq_length": None, "do_lower_case": False, "model_args": {}},
])  # fmt: skip
def test_settings_of_the_transformer_that_change_nothing(settings: Any, tmp_path: Path) -> None:
    model = read_sentence_model(_folder(tmp_path, sentence_bert_config_json=settings))
    assert (model.max_tokens, model.lower_case) == (None, False)


REFUSED: list[tuple[dict[str, Any], type[EdgeqError], str]] = [
    ({"pooling": {"pooling_mode": "attention"}}, UnsupportedError, r"pooling \['attention'\] is not supported"),
    ({"pooling": {"pooling_mode": "mean", "temperature": 2}}, UnsupportedError, "holds 'temperature', which edgeq"),
    ({"pooling": {"pooling_mode_cls_token": "yes"}}, FormatError, "'pooling_mode_cls_token' must be true or false"),
    ({"pooling": []}, FormatError, "should hold a JSON object"),
    ({"modules": ({"path": "w", "type": OLD + "WordWeights"},)}, UnsupportedError, "WordWeights' at this place"),
    ({"modules": ({"path": "p", "type": OLD + "Pooling"},)}, UnsupportedError, "Pooling' at this place"),
    ({"modules": ({"path": "", "type": "custom_code.Head"},)}, UnsupportedError, "code of its own"),
    ({"modules": ({"path": "../x", "type": OLD + "Normalize"},)}, FormatError, "not inside the folder"),
    ({"modules": ({"path": "d", "type": OLD + "Dense"},)}, FormatError, "there is no"),
    ({"modules": ({"path": "n", "type": OLD + "Normalize", "kwargs": ["task"]},)}, UnsupportedError, "'kwargs'"),
    ({"modules": ({"type": OLD + "Normalize"},)}, FormatError, "has a 'type' and a 'path'"),
    ({"modules": ({"path": "n", "name": "d", "type": OLD + "Normalize"},
                  {"path": "", "name": "d", "type": OLD + "Dropout"})}, FormatError, "two modules have the name 'd'"),
    ({"sentence_bert_config_json": {"max_seq_length": 0}}, FormatError, "'max_seq_length' must be a positive"),
    ({"sentence_bert_config_json": {"tokenizer_args": {"use_fast": False}}}, UnsupportedError, "'tokenizer_args'"),
    ({"sentence_bert_config_json": {"query_expansion": {"length": 32}}}, UnsupportedError, "'query_expansion'"),
    ({"sentence_bert_config_json": {"max_length": 3}}, UnsupportedError, "holds 'max_length'"),
    ({"config_sentence_transformers_json": {"prompts": ["a"]}}, FormatError, "'prompts' must be texts by name"),
    ({"config_sentence_transformers_json": {"default_prompt_name": "a"}}, FormatError, "'default_prompt_name' must be"),
    ({"config_sentence_transformers_json": {"similarity_fn_name": "maxsim"}}, UnsupportedError, "similarity 'maxsim'"),
    ({"config_sentence_transformers_json": {"model_type": "SparseEncoder"}}, UnsupportedError, "type 'SparseEncoder'"),
    ({"config_sentence_transformers_json": {"scale": 2}}, UnsupportedError, "holds 'scale'"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_is_not_understood_is_refused(
    made: dict[str, Any], error: type[EdgeqError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read_sentence_model(_folder(tmp_path, **made))


@pytest.mark.parametrize("extra", [
    {"activation_function": "my.Swish"}, {"module_input_name": "token_embeddings"}, {"out_features": 0}, {"new": 1}
])  # fmt: skip
def test_a_dense_module_is_understood_or_refused(extra: dict[str, Any], tmp_path: Path) -> None:
    config = {"in_features": 2, "out_features": 2, **extra}
    folder = _folder(tmp_path, modules=({"path": "d", "type": OLD + "Dense"},), d__config_json=config)
    with pytest.raises(EdgeqError, match=next(iter(extra)).split("_")[0]):
        read_sentence_model(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[3]"])
def test_damaged_modules(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(FormatError, match="is damaged"):
        read_sentence_model(tmp_path)
