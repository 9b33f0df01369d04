"""Finds the folder of a model: one on this machine, or the local copy of one on the Hugging Face hub."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError, UsageError
from edgeq.formats.json_file import read_json
from edgeq.formats.sentence_model import MODULES_FILE

_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja")
"""Configuration, weights without pickle, tokenizers; in folders of the repository too, where modules lie."""
_PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
_NOT_WANTED = ("onnx/*", "openvino/*", "*.onnx_data")


def resolve_source(source: str | Path) -> Path:
    """Returns the folder of a model: the folder itself, or the local copy of a model of the hub.

    The hub is asked as ``huggingface_hub`` is set up: its cache (``HF_HOME``), its token (``HF_TOKEN`` or ``hf auth
    login``), its address (``HF_ENDPOINT``). Without a network, or with ``HF_HUB_OFFLINE=1``, the copy in the cache is
    taken. Weights as pickle are fetched only if there are no others.

    Raises:
        UsageError: If there is no such folder, or the hub does not give the model.
    """
    path, name = Path(source), str(source)
    if not name:
        raise UsageError("there is no folder '': give the folder of a model, or its name on the hub")
    try:
        if path.is_dir():
            return path
        if path.exists():
            raise UsageError(f"{path} is a file; give the folder of a model")
    except (OSError, ValueError) as error:  # names too long for a file system, or with a zero byte
        raise UsageError(f"there is no folder {str(source)!r} ({error})") from None
    if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"there is no folder {name!r}; give the folder of a model, or its name on the hub")
    return _download(name)


def _download(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    def snapshot(patterns: tuple[str, ...]) -> Path:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=list(_NOT_WANTED))
        )

    try:
        folder = snapshot(_WANTED)
        if lacking := _without_weights(folder):
            folder = snapshot((*_WANTED, *(f"{place}{name}" for place in lacking for name in _PICKLES)))
    except errors.HFValidationError as error:
        raise UsageError(f"{name!r} is neither a folder nor a valid name on the hub ({_one_line(error)})") from None
    except errors.GatedRepoError:
        raise UsageError(
            f"{name!r} needs its terms to be accepted on the hub: do so there, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"{name!r} is not a folder, and the hub has no such model, or it is private: check the name, and for a "
            "private one log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except Exception as error:  # hub and HTTP clients raise many unrelated classes; all mean "not obtained"
        raise UsageError(
            f"{name!r} is not a folder, and the model cannot be loaded from the Hugging Face hub "
            f"({type(error).__name__}), nor is a copy in its cache; check the name and the network, or give a folder"
        ) from None
    return folder


def _without_weights(folder: Path) -> list[str]:
    """Places in the repository where weights belong and no safetensors lie: the model, and modules around it."""
    places = [""]
    with contextlib.suppress(EdgeqError, TypeError, KeyError):  # there are none, or damaged ones, as their reader says
        modules = read_json(folder / MODULES_FILE)
        places = [f"{entry['path']}/" if entry["path"] else "" for entry in modules if _has_weights(str(entry["type"]))]
    return [place for place in places if not any((folder / place).glob("*.safetensors"))]


def _has_weights(module: str) -> bool:
    return module.rsplit(".", 1)[-1] in ("Transformer", "Dense", "LayerNorm")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
