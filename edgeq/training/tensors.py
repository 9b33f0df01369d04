"""Tensors by name on disk, as safetensors: shared ones once, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from edgeq.errors import FormatError, UsageError
from edgeq.finite import check_finite
from edgeq.quant.trainable_layers import TrainableEmbedding

_SAME_AS = "same-as"
_OTHER = "other"
_EXTRA = "._extra_state"


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
        FormatError: If it is damaged, or holds a NaN or an infinity.
    """
    state = load_tensors(file)
    check_finite(((name, value) for name, value in state.items() if isinstance(value, torch.Tensor)), where=str(file))
    put_weights(model, state, source=str(file), quantizers=quantizers)


def put_weights(model: nn.Module, state: Mapping[str, Any], *, source: str, quantizers: bool) -> None:
    """Puts a state into ``model``; see :func:`load_weights`, which names the file as ``source``."""
    saved, own = dict(state), model.state_dict()
    if not quantizers:
        # Whether a layer is quantized, and how, is for the model to say: what is float here may be low-bit there.
        layers = [low_bit_layers(entries) for entries in (saved, own)]
        for name in sorted(layers[0] ^ layers[1]):
            _check_order(model, name, own, source)
        saved, own = (
            {name: value for name, value in entries.items() if not _of_quantizer(name, low_bit)}
            for entries, low_bit in zip((saved, own), layers, strict=True)
        )
    for name in sorted(own.keys() | saved.keys()):
        expected, found = _form(own.get(name)), _form(saved.get(name))
        if expected != found:
            raise UsageError(
                f"{source} is of another model: {name!r} should be {expected}, found {found}; start from a "
                "checkpoint of the same model and recipe, and load float weights before layers are made trainable"
            )
    model.load_state_dict(saved, strict=quantizers)


def low_bit_layers(names: Iterable[str]) -> set[str]:
    """Returns the layers that are quantized in training, from the names in a training checkpoint."""
    ends = [name.removesuffix(_EXTRA) for name in names if name.endswith(_EXTRA)]
    return {name.removesuffix(".quantizer") for name in ends}


def _of_quantizer(name: str, layers: set[str]) -> bool:
    owner = name.rpartition(".")[0]
    if owner in layers:
        return name.endswith(_EXTRA)
    outer, _, part = owner.rpartition(".")
    return part in ("quantizer", "activation") and outer in layers


def _check_order(model: nn.Module, name: str, own: Mapping[str, Any], source: str) -> None:
    """Refuses matrices that may be the other way round, where their shape does not tell: Conv1D's are."""
    weight = own.get(f"{name}.weight")
    square = isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    if square and not isinstance(model.get_submodule(name), nn.Linear | nn.Embedding | TrainableEmbedding):
        raise UsageError(
            f"layer {name!r} is quantized either in {source} or in the model, and not in both; start from a "
            "checkpoint of the same recipe, and load float weights before layers are made trainable"
        )


def _form(value: Any) -> str:
    if value is None:
        return "missing"
    return f"of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else "a plain value"
