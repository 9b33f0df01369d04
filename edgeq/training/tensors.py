"""Tensors by name on disk, as safetensors: shared ones once, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from edgeq.errors import FormatError, UsageError
from edgeq.training.quantizers import quantizer_entries

_SAME_AS = "same-as"
_OTHER = "other"


def save_tensors(file: Path, entries: Mapping[str, Any]) -> None:
    """Writes tensors, and beside them whatever else JSON holds.

    Args:
        file: The file.
        entries: Tensors, of which several may be one and the same (tied weights), and plain values.
    """
    tensors: dict[str, torch.Tensor] = {}
    places: dict[tuple[int, str, tuple[int, ...]], str] = {}
    same_as: dict[str, str] = {}
    other: dict[str, Any] = {}
    for name, value in entries.items():
        if not isinstance(value, torch.Tensor):
            other[name] = value
            continue
        place = (value.data_ptr(), str(value.dtype), tuple(value.shape))
        if value.numel() and place in places:
            same_as[name] = places[place]
        else:
            places[place] = name
            # A copy even where nothing changes: a view of part of a tensor cannot be written.
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
    metadata = {_SAME_AS: json.dumps(same_as, sort_keys=True), _OTHER: json.dumps(other, sort_keys=True)}
    save_file(tensors, file, metadata=metadata)
    file.chmod(0o644)  # safetensors creates it for its owner only


def load_tensors(file: Path) -> dict[str, Any]:
    """Reads what :func:`save_tensors` wrote.

    Raises:
        UsageError: If there is no such file.
        FormatError: If it is damaged.
    """
    if not file.is_file():
        raise UsageError(f"there is no training checkpoint {file}")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            entries: dict[str, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        same_as, other = (json.loads(metadata[key]) for key in (_SAME_AS, _OTHER))
        entries.update({name: entries[source] for name, source in same_as.items()})
        entries.update(other)
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError, AttributeError) as error:
        raise FormatError(f"{file} is damaged ({' '.join(str(error).split())}); restore it or start anew") from None
    return entries


def load_weights(model: nn.Module, file: Path, *, quantizers: bool) -> None:
    """Puts the weights of a training checkpoint into ``model``.

    Args:
        model: The model.
        file: A file written from the state of the same model.
        quantizers: Whether the state of quantizers is taken too; otherwise it is left as it is, and may be of
            another form.

    Raises:
        UsageError: If the file is missing or of another model.
        FormatError: If it is damaged.
    """
    put_weights(model, load_tensors(file), source=str(file), quantizers=quantizers)


def put_weights(model: nn.Module, state: Mapping[str, Any], *, source: str, quantizers: bool) -> None:
    """Puts a state into ``model``; see :func:`load_weights`, which names the file as ``source``."""
    saved, own = dict(state), model.state_dict()
    if not quantizers:
        of_quantizer = quantizer_entries(model)
        saved = {name: value for name, value in saved.items() if not of_quantizer(name)}
        own = {name: value for name, value in own.items() if not of_quantizer(name)}
    for name in sorted(own.keys() | saved.keys()):
        expected, found = _form(own.get(name)), _form(saved.get(name))
        if expected != found:
            raise UsageError(
                f"{source} is of another model: {name!r} should be {expected}, found {found}; start from a "
                "checkpoint of the same model and recipe, and load float weights before layers are made trainable"
            )
    if quantizers:
        model.load_state_dict(saved)
        return
    # Whether a layer quantizes its input is for the stage to say, as are the quantizers.
    kept = {name: value for name, value in saved.items() if not name.endswith("_extra_state")}
    model.load_state_dict(kept, strict=False)


def _form(value: Any) -> str:
    if value is None:
        return "missing"
    return f"of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else "a plain value"
