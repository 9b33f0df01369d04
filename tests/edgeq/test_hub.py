"""A model by its hub name, from a server on this machine: the user's cache, token and address are respected."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgeq.errors import UsageError
from edgeq.hub import resolve_source
from tests.edgeq.hub_server import TOKEN, hub_of

NAME = "someone/tiny-bert"
_SCRIPT = "import sys; from edgeq.hub import resolve_source; print(resolve_source(sys.argv[1]))"


def _resolve(name: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its environment once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    given = {"HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-c", _SCRIPT, name]
    return subprocess.run(command, capture_output=True, text=True, env=kept | given, timeout=300)


@pytest.fixture
def repository(make_bert: Callable[..., Path], tmp_path: Path) -> Path:
    """What a repository of the hub holds: the model, and much that edgeq does not need."""
    folder = Path(shutil.copytree(make_bert(), tmp_path / "repository"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    for name in ("tf_model.h5", "README.md", "onnx/model.onnx"):
        (folder / name).write_text("large")
    return folder


def test_a_model_is_fetched_once_and_found_offline(repository: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with hub_of(repository, name=NAME) as (address, asked):
        done = _resolve(NAME, cache, HF_ENDPOINT=address)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        assert cache in folder.parents
        assert (folder / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
        assert (folder / "1_Pooling" / "config.json").is_file()
        assert not {"pytorch_model.bin", "tf_model.h5", "README.md", "onnx/model.onnx", "onnx/config.json"} & set(asked)
        asked.clear()
        assert _resolve(NAME, cache, HF_ENDPOINT=address).stdout == done.stdout
        assert asked == []
    assert _resolve(NAME, cache, HF_ENDPOINT=address).stdout == done.stdout  # the server is gone
    assert _resolve(NAME, cache, HF_HUB_OFFLINE="1").stdout == done.stdout
    never = _resolve("someone/never-fetched", cache, HF_HUB_OFFLINE="1")
    assert "UsageError: 'someone/never-fetched' is not a folder" in never.stderr


def test_a_pickle_is_fetched_if_there_is_nothing_else(repository: Path, tmp_path: Path) -> None:
    (repository / "model.safetensors").unlink()
    with hub_of(repository, name=NAME) as (address, asked):
        done = _resolve(NAME, tmp_path / "cache", HF_ENDPOINT=address)
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").is_file(), done.stderr
    assert "tf_model.h5" not in asked


def test_pickles_of_modules_are_fetched_where_there_is_nothing_else(repository: Path, tmp_path: Path) -> None:
    """A repository may have safetensors of the model, and of a module behind it a pickle only."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (repository / "modules.json").write_text(json.dumps(modules))
    (repository / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.ones(2, 2)}, repository / "2_Dense" / "pytorch_model.bin")
    with hub_of(repository, name=NAME) as (address, asked):
        done = _resolve(NAME, tmp_path / "cache", HF_ENDPOINT=address)
    assert (Path(done.stdout.strip()) / "2_Dense" / "pytorch_model.bin").is_file(), done.stderr
    assert "pytorch_model.bin" not in asked


def test_a_private_model_needs_the_users_token(repository: Path, tmp_path: Path) -> None:
    with hub_of(repository, name=NAME, private=True) as (address, _):
        refused = _resolve(NAME, tmp_path / "cache", HF_ENDPOINT=address)
        assert "the hub has no such model, or it is private" in refused.stderr
        done = _resolve(NAME, tmp_path / "cache", HF_ENDPOINT=address, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a/b/c", "../up", "./here", "/there", "~me", "", "x" * 5000])
def test_what_is_no_name_is_a_folder_that_is_missing(name: str) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        resolve_source(name)


@pytest.mark.parametrize("name", ["no spaces/allowed here", "zero\x00byte"])
def test_a_name_that_the_hub_cannot_have(name: str) -> None:
    with pytest.raises(UsageError, match="valid name on the hub"):
        resolve_source(name)
