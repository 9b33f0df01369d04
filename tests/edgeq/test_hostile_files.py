"""Whatever lies in a folder in the place of a file: a sentence, and neither a wait, nor memory, nor a traceback."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgeq.checkpoint import load_checkpoint
from edgeq.cli.main import main
from edgeq.deploy.state import RunState
from edgeq.errors import EdgeqError, FormatError
from edgeq.evaluate.data import read_evaluation_set, read_text_file
from edgeq.formats.quantization_config import QuantizationManifest
from edgeq.formats.sentence_model import read_sentence_model
from edgeq.formats.stored import read_stored_model
from edgeq.formats.tensor_header import read_tensor_header
from edgeq.formats.tokenizer_files import check_tokenizer_files
from edgeq.parity.run_folder import float_model_of, task_of_source
from edgeq.recipes import load_recipe
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.generation_config import read_generation_settings
from edgeq.targets.bundle.model_info import read_end_ids, read_model_info, read_target_tokens, source_context
from edgeq.weight_files import find_weights

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = [
    "architectures", "model_type", "vocab_size", "max_position_embeddings", "n_positions", "id2label", "eos_token_id",
    "decoder_start_token_id", "forced_bos_token_id", "quantization_config", "num_beams", "max_length", "temperature",
    "do_sample", "repetition_penalty", "length_penalty", "early_stopping", "no_repeat_ngram_size", "top_k", "top_p",
    "path", "type", "prompts", "default_prompt_name", "similarity_fn_name", "max_seq_length", "modality_config",
    "pooling_mode", "in_features", "activation_function",
    "model", "vocab", "added_tokens", "weight_map", "format", "about", "stages", "files", "tensors", "recipe",
    "factors", "pooling_mode_mean_tokens", "model_max_length", "weights", "format_version", "tied", "kept_float",
]  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(KEYS), NESTED, max_size=5)
FILES: dict[str, Callable[[Path], object]] = {
    "config.json": lambda f: (
        read_model_info(f), read_end_ids(f), read_target_tokens(f), source_context(f), read_stored_model(f),
    ),
    "generation_config.json": lambda f: read_generation_settings(f, with_source=True),
    "tokenizer.json": check_tokenizer_files,
    "tokenizer_config.json": check_tokenizer_files,
    "added_tokens.json": check_tokenizer_files,
    "model.safetensors.index.json": find_weights,
    "manifest.json": read_stored_model,
    "deploy.json": lambda f: (float_model_of(f), task_of_source(f), RunState.load(f)),
    **dict.fromkeys(
        ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json",
         "config_sentence_transformers.json"],
        read_sentence_model,
    ),
}  # fmt: skip


def _only_sentences(read: Callable[[], object]) -> None:
    """Anything but an error of edgeq's own fails the test."""
    try:
        read()
    except EdgeqError as error:
        said = str(error)
    else:
        said = "read"
    assert said.isprintable()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one file after the other is replaced by something else."""
    path = tmp_path_factory.mktemp("hostile")
    (path / "1_Pooling").mkdir()
    (path / "2_Dense").mkdir()
    return path


def _restore(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 2, "out_features": 2}')


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=OBJECTS | NESTED)
def test_any_json_in_any_file_is_read_or_refused(name: str, value: object, folder: Path) -> None:
    _restore(folder)
    (folder / name).write_text(json.dumps(value))
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    _only_sentences(lambda: FILES[name](folder))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=64) | st.sampled_from([b"[" * 9999, b'{"a": ' + b"7" * 6000 + b"}", b'{"a": NaN}']))
def test_any_bytes_in_any_file_are_read_or_refused(name: str, content: bytes, folder: Path) -> None:
    _restore(folder)
    (folder / name).write_bytes(content)
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    _only_sentences(lambda: FILES[name](folder))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=OBJECTS | NESTED)
def test_any_description_of_a_compressed_model_is_read_or_refused(value: object) -> None:
    if isinstance(value, dict):
        value |= {"quant_method": "edgeq", "format_version": 1}
    _only_sentences(lambda: QuantizationManifest.from_json(value))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt", "a.toml", "model.safetensors", "x.onnx"])
def test_any_bytes_as_data_or_settings_are_read_or_refused(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    readers: dict[str, list[Callable[[Path], object]]] = {
        ".toml": [load_recipe, load_target],
        ".txt": [read_text_file],
        ".safetensors": [read_tensor_header],
        ".onnx": [read_stored_model],
    }
    for read in readers.get(path.suffix, [read_evaluation_set]):
        _only_sentences(lambda read=read: read(path))  # type: ignore[misc]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(header=st.dictionaries(st.text(max_size=5), NESTED, max_size=3), data=st.binary(max_size=20))
def test_any_header_of_tensors_is_read_or_refused(header: dict[str, Any], data: bytes, folder: Path) -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    _only_sentences(lambda: read_tensor_header(folder / "model.safetensors"))


@pytest.fixture
def checkpoint(float_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(float_checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "sparse"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_something_else_in_the_place_of_a_file(
    kind: str, name: str, checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = checkpoint / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    assert main(["compress", str(checkpoint), str(tmp_path / "out"), "-r", "ptq-w8a8"]) in (1, 2)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgeq: ")]
    assert len(said) == 1
    assert name in said[0]
    assert "internal error" not in said[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["model", "added"])
def test_a_token_with_an_impossible_id(place: str, checkpoint: Path) -> None:
    table = json.loads((checkpoint / "tokenizer.json").read_text())
    if place == "model":
        table["model"]["vocab"]["huge"] = 10**9
    else:
        table["added_tokens"][0]["id"] = 10**9
    (checkpoint / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(FormatError, match=r"tokenizer\.json: a token's id should be .* found 1000000000"):
        load_checkpoint(checkpoint)


def test_names_from_files_are_escaped(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    for change in ({"model_type": "\x1b[2J"}, {"architectures": ["\x1b]0;owned\x07\nedgeq: all is well"]}):
        (checkpoint / "config.json").write_text(json.dumps(config | change))
        assert main(["compress", str(checkpoint), str(tmp_path / "out"), "-r", "ptq-w8a8"]) == 1
        said = capsys.readouterr().err
        assert r"\x1b" in said
        assert all(line.isprintable() for line in said.splitlines())
        assert said.count("\nedgeq: ") + said.startswith("edgeq: ") == 1
