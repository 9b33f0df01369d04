"""``config.json`` of a checkpoint folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.quantization_config import QUANT_METHOD
from edgeq.models import adapter_classes, check_family
from edgeq.models.transformers_release import in_words_of_release
from edgeq.quiet import quiet_transformers
from edgeq.weight_files import WeightFiles

_ADAPTER_CONFIG = "adapter_config.json"
_COMMON_PREFIXES = {"model", "transformer"}  # of many families
_BERT_NAMES = {
    "embeddings.word_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "encoder.layer.0.attention.self.query.weight",
}
_BERT_VOCABULARY = "vocab.txt"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a checkpoint folder.

    Raises:
        UsageError: If the folder or the file is missing.
        FormatError: If the file is not a JSON object.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give the folder of a model")
    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"{folder} is not a model folder: it holds no config.json; give {_instead(folder)}")
    return read_json_object(path)


def _instead(folder: Path) -> str:
    """Says what to give instead of a folder without ``config.json``: most often the model lies one folder deeper."""
    models = sorted({path.parent for pattern in _WEIGHTS for path in folder.glob(f"*/{pattern}")})
    models = [inside for inside in models if (inside / "config.json").is_file()]
    if len(models) == 1:
        return f"its folder {models[0].name!r}, which is one"
    if any(folder.glob("*.onnx")):
        return "the checkpoint that its ONNX file was exported from"
    return "a Hugging Face checkpoint"


def parse_config(folder: Path, values: dict[str, Any], weights: WeightFiles) -> Any:
    """Makes the configuration object of ``transformers`` that the values of a ``config.json`` describe.

    Args:
        folder: The folder, for messages.
        values: What :func:`read_config` returned.
        weights: Its weights, whose names tell the family where the configuration does not.

    Raises:
        UsageError: If nothing tells the family.
        UnsupportedError: If the family is unknown, or the folder brings code or an adapter.
        FormatError: If a value is not possible.
    """
    path = folder / "config.json"
    plain = {key: value for key, value in values.items() if key != "quantization_config"}
    if plain.get("auto_map"):
        raise UnsupportedError(f"{path} brings code of its own (auto_map), which edgeq does not run")
    if (folder / _ADAPTER_CONFIG).exists():
        raise UnsupportedError(f"{folder / _ADAPTER_CONFIG} describes an adapter (PEFT); merge it into the model first")
    model_type = plain.get("model_type") or _model_type(folder, plain.get("architectures"), weights.tensors)
    plain["model_type"] = model_type
    plain = in_words_of_release(plain)
    if model_type is None:
        raise UsageError(f"{path} names no model_type, and the names of the tensors do not tell it; add it")
    if not isinstance(model_type, str) or model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        raise UnsupportedError(f"{path}: model type {model_type!r} is unknown")
    architectures = plain.get("architectures")
    check_family(model_type, str(architectures[0]) if isinstance(architectures, list) and architectures else None)
    try:
        with quiet_transformers():  # labels are judged beside the weights
            return transformers.AutoConfig.for_model(**plain)
    except Exception as error:  # config classes check values with whatever exception is at hand
        raise FormatError(f"{path} is damaged: {one_line(error)}") from error


def _model_type(folder: Path, architectures: object, tensors: Iterable[str]) -> str | None:
    """What configurations older than ``model_type`` mean: told by a class, or by the names of tensors and files."""
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    names = set(tensors)
    if named is None and names >= _BERT_NAMES and (folder / _BERT_VOCABULARY).is_file():
        return "bert"  # of the families with these names that are as old, the others have a vocab.json
    begins = {name.partition(".")[0] for name in names}
    for family, adapters in adapter_classes().items():
        for adapter in adapters:
            prefixes = {adapter.class_named(architecture).base_model_prefix for architecture in adapter.architectures}
            if named in adapter.architectures or (prefixes - _COMMON_PREFIXES) & begins:
                return family
    return None


def contradicts_its_labels(values: dict[str, Any]) -> bool:
    """Tells whether a ``config.json`` says one number of labels and names another one."""
    named, count = values.get("id2label"), values.get("num_labels")
    return isinstance(named, dict) and isinstance(count, int) and count != len(named)


def one_line(error: BaseException) -> str:
    """Returns what another library's exception says, in one line of at most 300 characters and an ellipsis."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def is_compressed(folder: Path | str) -> bool:
    """Tells whether a checkpoint folder holds a compressed model."""
    return names_method(read_config(Path(folder)))


def names_method(values: dict[str, Any]) -> bool:
    """Tells whether a ``config.json`` says that edgeq compressed the model."""
    quantization = values.get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == QUANT_METHOD
