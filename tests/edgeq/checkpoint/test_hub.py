"""Checkpoints as the hub has them: classes of pre-training, shards, pickles, half precision, old and odd names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.models.transformers_release import RELEASE

Change = Callable[[dict[str, Any]], object]


def _edit(folder: Path, name: str, change: Change) -> None:
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def _copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _rename(folder: Path, rename: Callable[[str], str]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def _states(model: Any) -> torch.Tensor:
    ids = torch.randint(5, 80, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(input_ids=ids)[0]


def _is_the_encoder(folder: Path, source: Path, **options: Any) -> bool:
    expected = transformers.AutoModel.from_pretrained(source)
    return torch.equal(_states(load_checkpoint(folder, **options).model), _states(expected))


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertForPreTraining", "BertForNextSentencePrediction"])
def test_the_encoder_of_a_pretrained_checkpoint_is_the_default(
    architecture: str, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bert(architecture)
    if architecture.endswith("NextSentencePrediction"):
        with pytest.raises(UnsupportedError, match=r"BertForNextSentencePrediction.*feature-extraction"):
            load_checkpoint(source)
    else:
        assert _is_the_encoder(source, source)
        assert f"names {architecture}" in load_checkpoint(source).remarks[0]
        compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["architectures"] == ["BertModel"]
        compressed = load_checkpoint(tmp_path / "out").model
        loaded = transformers.AutoModel.from_pretrained(tmp_path / "out")
        assert torch.equal(_states(compressed), _states(loaded))
        assert (loaded.pooler is None) == (architecture == "BertForMaskedLM")
    assert _is_the_encoder(source, source, task="feature-extraction")


def test_relatives_load_as_encoders_too(make_bert_relative: Callable[..., Path]) -> None:
    for architecture in ("RobertaForMaskedLM", "DistilBertForMaskedLM"):
        source = make_bert_relative(architecture)
        assert _is_the_encoder(source, source)


def test_a_body_of_a_generator_gets_its_head(
    make_gpt2: Callable[..., Path], make_bart: Callable[..., Path], tmp_path: Path
) -> None:
    for source in (make_gpt2("GPT2Model"), make_bart("BartModel")):
        loaded = load_checkpoint(source)
        expected = loaded.adapter.model_class.from_pretrained(source)
        assert torch.equal(_states(loaded.model), _states(expected))
        assert loaded.adapter.task in ("generate", "seq2seq")


@pytest.mark.parametrize("missing", ["architectures", "model_type", "both", "null"])
def test_a_configuration_that_names_nothing(missing: str, make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForPreTraining")
    folder = _copy(source, tmp_path)
    for key in ("architectures", "model_type") if missing == "both" else (missing,) if missing != "null" else ():
        _edit(folder, "config.json", lambda values, key=key: values.pop(key))
    if missing == "null":
        _edit(folder, "config.json", lambda values: values.update(architectures=None))
    assert _is_the_encoder(folder, source)


def _as_years_ago(folder: Path) -> Path:
    """Makes the folder one from before ``model_type`` and ``tokenizer.json``."""
    for key in ("architectures", "model_type"):
        _edit(folder, "config.json", lambda values, key=key: values.pop(key))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def test_an_encoder_from_before_families_had_names(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """``transformers`` guesses by the name of the folder, which says nothing here."""
    source = make_bert()
    folder = _as_years_ago(Path(shutil.copytree(source, tmp_path / "gpt2-things" / "x", dirs_exist_ok=True)))
    assert _is_the_encoder(folder, source)
    loaded = load_checkpoint(folder)
    assert "taken as 'bert'" in loaded.remarks[0]
    assert loaded.tokenizer("a cat")["input_ids"] == load_checkpoint(source).tokenizer("a cat")["input_ids"]
    (folder / "vocab.txt").rename(folder / "vocab.json")
    with pytest.raises(UsageError, match="names no model_type"):
        load_checkpoint(folder)


def test_more_labels_than_names(make_bert: Callable[..., Path], tmp_path: Path, capfd: Any) -> None:
    """Old releases wrote two names beside any number of labels; release 4 of ``transformers`` fails at the weights."""
    folder = _copy(make_bert("BertForSequenceClassification", num_labels=5), tmp_path)
    names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "num_labels": 5}
    _edit(folder, "config.json", lambda values: values.update(names))
    if RELEASE < 5:
        said = r"num_labels = 5 and names 2 labels.*'classifier\.\w+' should have shape"
        with pytest.raises(FormatError, match=said):
            load_checkpoint(folder)
    else:  # goes by the number
        assert load_checkpoint(folder).adapter.labels == [f"LABEL_{number}" for number in range(5)]
    assert load_checkpoint(folder, task="feature-extraction").adapter.task == "embed"
    assert "incompatible" not in capfd.readouterr().err
    _edit(folder, "config.json", lambda values: [values.pop("id2label"), values.pop("label2id")])
    assert load_checkpoint(folder).adapter.labels == [f"LABEL_{number}" for number in range(5)]


def test_a_folder_around_the_model(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(make_bert(), tmp_path / "package" / "model")
    with pytest.raises(UsageError, match=r"holds no config\.json; give its folder 'model', which is one$"):
        load_checkpoint(tmp_path / "package")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="give the checkpoint that its ONNX file was exported from"):
        load_checkpoint(tmp_path / "exported")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="give a Hugging Face checkpoint"):
        load_checkpoint(tmp_path / "empty")


def test_a_vocabulary_of_another_kind(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    folder = _copy(make_encoder("AlbertModel"), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(FormatError, match=r"'albert', which is read from tokenizer.json or spiece.model.*vocab.txt"):
        load_checkpoint(folder)


def test_capitals_that_never_occur(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert()
    folder = _as_years_ago(_copy(source, tmp_path))
    tokens = (folder / "vocab.txt").read_text().splitlines()
    capitals = [token.replace("word", "Word") for token in tokens]
    (folder / "vocab.txt").write_text("\n".join(capitals) + "\n")
    assert "lower-cases texts" not in " ".join(load_checkpoint(source).remarks)
    remark = load_checkpoint(folder).remarks[-1]
    assert "lower-cases texts, so that 70 of its" in remark
    assert "'Word0', 'Word1', 'Word2', ..." in remark
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert "lower-cases texts" not in " ".join(load_checkpoint(folder).remarks)


def test_a_head_without_a_name_is_not_guessed(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForSequenceClassification", num_labels=3)
    folder = _copy(source, tmp_path)
    _edit(folder, "config.json", lambda values: values.pop("architectures"))
    with pytest.raises(UsageError, match=r"classifier.bias.*--task.*feature-extraction or .*text-classification"):
        load_checkpoint(folder)
    expected = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    assert torch.equal(_states(load_checkpoint(folder, task="text-classification").model), _states(expected))
    assert _is_the_encoder(folder, source, task="feature-extraction")


def test_tasks_are_chosen_by_name(make_bert: Callable[..., Path]) -> None:
    source = make_bert()
    with pytest.raises(UsageError, match="no task 'text-clasification'; did you mean 'text-classification'"):
        load_checkpoint(source, task="text-clasification")
    with pytest.raises(UnsupportedError, match="no text-generation for model type 'bert'; it has feature-extraction"):
        load_checkpoint(source, task="text-generation")
    with pytest.raises(FormatError, match=r"lacks tensor 'classifier\.weight'"):
        load_checkpoint(source, task="text-classification")


def test_an_encoder_without_pooler(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert()
    folder = _copy(source, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("pooler")}, folder / "model.safetensors")
    assert _is_the_encoder(folder, source)
    compress_model(folder, tmp_path / "out", recipe="ptq-w4a8")
    again = load_checkpoint(tmp_path / "out")
    assert "pooler.dense" not in again.adapter.linear_names
    assert transformers.AutoModel.from_pretrained(tmp_path / "out").pooler is None
    save_file({k: v for k, v in tensors.items() if k != "pooler.dense.bias"}, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"lacks tensor 'pooler\.dense\.bias'"):
        load_checkpoint(folder)


@pytest.fixture
def sharded(make_bert: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint in several safetensors files, and the same in one."""
    source = make_bert()
    folder = _copy(source, tmp_path)
    (folder / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(source).save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder, source


def test_several_files_with_an_index(sharded: tuple[Path, Path]) -> None:
    assert _is_the_encoder(*sharded)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "x\x00y"])
def test_an_index_cannot_name_files_elsewhere(name: str, sharded: tuple[Path, Path]) -> None:
    def change(values: dict[str, Any]) -> None:
        values["weight_map"]["pooler.dense.bias"] = name

    _edit(sharded[0], "model.safetensors.index.json", change)
    with pytest.raises(FormatError, match=r"not a file of this folder|is missing|cannot be"):
        load_checkpoint(sharded[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["weight_map"].pop("pooler.dense.bias"), "disagree on tensor 'pooler.dense.bias'"),
        (lambda v: v["weight_map"].update(extra="model-00001-of-00009.safetensors"), "extra|is missing"),
        (lambda v: v.update(weight_map=[]), "'weight_map' should name"),
        (lambda v: v.update(weight_map={"a": 3}), "'weight_map' should name"),
    ],
)
def test_an_index_that_is_wrong_is_named(change: Change, reason: str, sharded: tuple[Path, Path]) -> None:
    _edit(sharded[0], "model.safetensors.index.json", change)
    with pytest.raises(FormatError, match=reason):
        load_checkpoint(sharded[0])


@pytest.fixture
def pickled(make_bert: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint with pytorch_model.bin only, and the same as safetensors."""
    source = make_bert()
    folder = _copy(source, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(load_file(source / "model.safetensors"), folder / "pytorch_model.bin")
    return folder, source


def test_a_pickle_is_read_as_tensors_and_that_is_said(pickled: tuple[Path, Path]) -> None:
    assert _is_the_encoder(*pickled)
    assert "weights_only=True" in load_checkpoint(pickled[0]).remarks[0]


def test_pickles_of_old_releases_and_in_shards(pickled: tuple[Path, Path]) -> None:
    folder, source = pickled
    tensors = load_file(source / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert _is_the_encoder(folder, source)
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    for place, part in (("a.bin", names[:9]), ("b.bin", names[9:])):
        torch.save({name: tensors[name] for name in part}, folder / place)
    index = {"weight_map": {name: "a.bin" if name in names[:9] else "b.bin" for name in names}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert _is_the_encoder(folder, source)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/edgeq-was-here"),)  # noqa: S108


def test_a_pickle_with_code_is_refused_unrun(pickled: tuple[Path, Path]) -> None:
    for old in (True, False):
        torch.save({"a": _Evil()}, pickled[0] / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        with pytest.raises(UnsupportedError, match=r"pytorch_model\.bin cannot be read as plain tensors"):
            load_checkpoint(pickled[0])
    assert not Path("/tmp/edgeq-was-here").exists()  # noqa: S108


@pytest.mark.parametrize("content", ["cut", "empty", "text", "list", "expanded"])
def test_a_damaged_pickle_is_named(content: str, pickled: tuple[Path, Path]) -> None:
    file = pickled[0] / "pytorch_model.bin"
    if content == "cut":
        file.write_bytes(file.read_bytes()[:-3000])
    elif content == "list":
        torch.save([1, 2], file)
    elif content == "expanded":  # 4 bytes that claim to be 4 TB
        torch.save({"embeddings.word_embeddings.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)
    else:
        file.write_bytes(b"" if content == "empty" else b"hello")
    with pytest.raises(EdgeqError, match=r"pytorch_model\.bin"):
        load_checkpoint(pickled[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = _copy(make_bert(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors")
    loaded = load_checkpoint(folder).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    expected = {name: tensor.to(dtype).float() for name, tensor in tensors.items()}
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"bert.{name}",
        lambda name: f"bert.bert.{name}",
        lambda name: f"module.bert.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"0.auto_model.{name}",
        lambda name: f"model.bert.{name}",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    ],
)
def test_names_that_wrappers_and_older_releases_left(
    rename: Callable[[str], str], make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bert()
    assert _is_the_encoder(_rename(_copy(source, tmp_path), rename), source)


def test_a_classifier_whose_body_lacks_its_prefix(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForSequenceClassification")
    folder = _rename(_copy(source, tmp_path), lambda name: name.removeprefix("bert."))
    expected = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    assert torch.equal(_states(load_checkpoint(folder).model), _states(expected))


def test_gpt2_as_the_hub_stores_it(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    source = make_gpt2()
    folder = _rename(_copy(source, tmp_path), lambda name: name.removeprefix("transformer."))
    tensors = load_file(folder / "model.safetensors")
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 33, 33).tril()
    tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors")
    expected = transformers.GPT2LMHeadModel.from_pretrained(source)
    assert torch.equal(_states(load_checkpoint(folder).model), _states(expected))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda t: t.pop("encoder.layer.1.output.dense.bias"), FormatError, r"lacks tensor 'encoder\.layer\.1"),
        (lambda t: t.update({"adapter.up": torch.ones(2)}), UsageError, r"tensor 'adapter\.up', which no bert model"),
        (lambda t: t.update({"encoder.layer.2.output.dense.bias": torch.ones(40)}), UsageError, r"layer\.2"),
        (lambda t: t.update({"pooler.dense.bias": torch.ones(41)}), FormatError, r"\[40\] by .*, found \[41\]"),
        (lambda t: t.update({"pooler.dense.bias": torch.ones(40).char()}), FormatError, "hold floats.*I8"),
        (lambda t: t.update({"bert.pooler.dense.bias": torch.ones(40)}), FormatError, r"'pooler\.dense\.bias' twice"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    change: Change, error: type, reason: str, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    folder = _copy(make_bert(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(error, match=reason):
        load_checkpoint(folder)


def test_heads_of_other_tasks_are_left_out(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForMultipleChoice")
    with pytest.raises(UnsupportedError, match="BertForMultipleChoice"):
        load_checkpoint(source)
    assert _is_the_encoder(source, source, task="feature-extraction")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tf_model.h5", r"found tf_model\.h5"),
        ("model.fp16.safetensors", r"found model\.fp16\.safetensors"),
        ("model.gguf", r"found model\.gguf"),
    ],
)
def test_weights_of_other_kinds_are_named(
    name: str, reason: str, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    folder = _copy(make_bert(), tmp_path)
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UnsupportedError, match=reason):
        load_checkpoint(folder)


def test_code_and_adapters_are_refused(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = _copy(make_bert(), tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedError, match=r"adapter_config\.json.*merge"):
        load_checkpoint(folder)
    _edit(folder, "config.json", lambda values: values.update(auto_map={"AutoModel": "modeling_x.XModel"}))
    with pytest.raises(UnsupportedError, match="code of its own"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "tensor",
    [
        "encoder.layer.0.intermediate.dense.bias",
        "embeddings.LayerNorm.weight",
        "embeddings.word_embeddings.weight",
        "pooler.dense.bias",
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_wherever_it_stands(
    tensor: str, value: float, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    folder = _copy(make_bert(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].view(-1)[3] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FormatError, match=f"tensor '{tensor}' holds 1 of"):
        compress_model(folder, tmp_path / "out", recipe="ptq-w8a8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["vocab.txt", "vocab.json and merges.txt"])
def test_a_tokenizer_without_tokenizer_json(
    kind: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bert() if kind == "vocab.txt" else make_gpt2()
    folder = _copy(source, tmp_path)
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    if kind != "vocab.txt":
        expected.backend_tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    if kind != "vocab.txt":
        (folder / "tokenizer_config.json").unlink()
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
    found = load_checkpoint(folder).tokenizer
    assert found("the cat sat")["input_ids"] == expected("the cat sat")["input_ids"]
