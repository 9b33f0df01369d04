"""What a model is for, read from the files beside ``model.onnx``: task, pooling, labels, longest text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UsageError
from edgeq.formats.json_file import read_json, read_json_object
from edgeq.targets.runtime.schema import ModelInfo

CONFIG_FILE = "config.json"
COPIED_FILES = (CONFIG_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that a bundle takes over from the ONNX folder, where they exist."""

_CLASSIFIER = "ForSequenceClassification"
_DECODER = ("LMHeadModel", "ForCausalLM")
_ENCODER_DECODER = "ForConditionalGeneration"
GENERATION_FILE = "generation_config.json"
WRITING_TASKS = ("generate", "seq2seq")
"""Tasks of models that make text."""
_POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the model's configuration.

    Raises:
        UsageError: If the folder has none.
        FormatError: If it is not valid.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{folder} has no {CONFIG_FILE}; give a folder that `edgeq export` wrote")
    return read_json_object(path)


def read_model_info(folder: Path, *, context: int | None = None) -> ModelInfo:
    """Reads task, pooling, labels and the longest sequence from an ONNX folder.

    Args:
        folder: The ONNX folder.
        context: For models that make text: most tokens of a sequence; None takes as many as the model has positions.

    Raises:
        UsageError: If the folder has no configuration, or the model has no such context.
        FormatError: If a file is damaged.
    """
    config = read_config(folder)
    path = folder / CONFIG_FILE
    architectures = config.get("architectures") or ["unknown"]
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise FormatError(f"{path}: 'architectures' must be a list of texts, found {architectures!r}")
    architecture = architectures[0]
    task = "embed"
    if architecture.endswith(_CLASSIFIER):
        task = "classify"
    elif architecture.endswith(_DECODER):
        task = "generate"
    elif architecture.endswith(_ENCODER_DECODER):
        task = "seq2seq"
    if context is not None and task not in WRITING_TASKS:
        raise UsageError(f"--context is for models that make text, and {architecture} does not; leave it out")
    pooling, normalize = _pooling(folder) if task == "embed" else ("none", False)
    return ModelInfo(
        architecture=architecture,
        task=task,
        pooling=pooling,
        normalize=normalize,
        labels=_labels(config, path) if task == "classify" else (),
        max_length=_context(config, path, context) if task in WRITING_TASKS else _max_length(config, folder),
    )


def recipe_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the recipe that a compressed model's configuration names, or None for a float model."""
    quantization = config.get("quantization_config")
    recipe = quantization.get("recipe") if isinstance(quantization, dict) else None
    return recipe if isinstance(recipe, dict) else None


def _pooling(folder: Path) -> tuple[str, bool]:
    """Pooling and normalisation as sentence-transformers stores them; the mean where it stored nothing."""
    pooling, normalize = "mean", False
    pooling_path = folder / "1_Pooling" / CONFIG_FILE
    if pooling_path.is_file():
        table = read_json(pooling_path)
        modes = [key for key, value in table.items() if key.startswith("pooling_mode_") and value is True]
        if len(modes) != 1 or modes[0] not in _POOLING_MODES:
            raise FormatError(
                f"{pooling_path}: exactly one of {', '.join(_POOLING_MODES)} must be true, "
                f"found {', '.join(modes) or 'none'}"
            )
        pooling = _POOLING_MODES[modes[0]]
    modules_path = folder / "modules.json"
    if modules_path.is_file():
        modules = read_json(modules_path)
        normalize = any(str(module.get("type", "")).endswith(".Normalize") for module in modules)
    return pooling, normalize


def _labels(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    table = config.get("id2label")
    if not isinstance(table, dict):
        return ()
    try:
        return tuple(str(table[str(index)]) for index in range(len(table)))
    except KeyError as error:
        raise FormatError(f"{path}: 'id2label' has no label for class {error}") from error


@dataclasses.dataclass(frozen=True)
class TargetTokens:
    """How an encoder-decoder's texts start and end; see ``SourceInfo`` of the runtime."""

    start: int
    forced_first: int | None
    forced_last: int | None


def read_target_tokens(folder: Path) -> TargetTokens:
    """Reads how the texts of an encoder-decoder start and end.

    Raises:
        FormatError: If nothing says what they start with, or something is no token id.
    """
    start = _token(folder, "decoder_start_token_id")
    if start is None:
        raise FormatError(f"{folder / CONFIG_FILE}: 'decoder_start_token_id' is missing; texts cannot start without it")
    return TargetTokens(start, _token(folder, "forced_bos_token_id"), _token(folder, "forced_eos_token_id"))


def source_context(folder: Path) -> int:
    """Returns the most tokens that an encoder-decoder reads.

    Raises:
        FormatError: If the configuration does not say it.
    """
    config = read_config(folder)
    return min(_context(config, folder / CONFIG_FILE, None), _max_length(config, folder) or 1 << 40)


def _token(folder: Path, key: str) -> int | None:
    for name in (GENERATION_FILE, CONFIG_FILE):
        path = folder / name
        token = read_json(path).get(key) if path.is_file() else None
        if token is not None and not (type(token) is int and token >= 0):
            raise FormatError(f"{path}: {key!r} must be a token id, found {token!r}")
        if token is not None:
            return int(token)
    return None


def read_end_ids(folder: Path) -> tuple[int, ...]:
    """Returns the tokens that end a text; none if the model has no such token.

    Raises:
        FormatError: If they are no token ids.
    """
    end = None
    for name in (GENERATION_FILE, CONFIG_FILE):
        path = folder / name
        if end is None and path.is_file():
            end = read_json(path).get("eos_token_id")
            ids = end if isinstance(end, list) else [end]
            if end is not None and not all(type(token) is int and token >= 0 for token in ids):
                raise FormatError(f"{path}: 'eos_token_id' must be one or several token ids, found {end!r}")
    return () if end is None else tuple(end if isinstance(end, list) else [end])


def _context(config: dict[str, Any], path: Path, wanted: int | None) -> int:
    positions = config.get("n_positions", config.get("max_position_embeddings"))
    if type(positions) is not int or positions < 1:
        raise FormatError(f"{path}: 'n_positions' must be a positive integer, found {positions!r}")
    if wanted is not None and not 1 <= wanted <= positions:
        raise UsageError(f"--context must lie in 1..{positions}, the positions that the model has, found {wanted}")
    return positions if wanted is None else wanted


def _max_length(config: dict[str, Any], folder: Path) -> int | None:
    limits = [config.get("max_position_embeddings")]
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        # Tokenizers without a limit store 1e30, which is no smaller than the model's own.
        limits.append(read_json(tokenizer).get("model_max_length"))
    lengths = [int(limit) for limit in limits if isinstance(limit, int | float) and 1 <= limit < 1 << 40]
    return min(lengths) if lengths else None
