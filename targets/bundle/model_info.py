"""What a model is for, read from the files beside ``model.onnx``: task, labels, longest text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import FormatError, UsageError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.sentence_model import SentenceModel, read_sentence_model
from edgeq.formats.tasks import task_of_class
from edgeq.targets.runtime.schema import ModelInfo

if TYPE_CHECKING:
    from edgeq.targets.compiler.limits import PositionLimit

CONFIG_FILE = "config.json"
COPIED_FILES = (CONFIG_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that a bundle takes over from the ONNX folder, where they exist."""

_POSITIONS = ("max_position_embeddings", "n_positions")
GENERATION_FILE = "generation_config.json"
TOKEN_TASKS = ("tag", "fill")
"""Tasks whose results speak of single tokens."""


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
    """Reads task, labels and the longest sequence from an ONNX folder or a checkpoint.

    Args:
        folder: The ONNX folder.
        context: Of models that generate text: most tokens of a sequence; None takes as many as the model has positions.

    Raises:
        UsageError: If the folder has no configuration, or the model has no such context.
        FormatError: If a file is damaged.
    """
    sentence = read_sentence_model(folder)
    folder = sentence.transformer
    config = read_config(folder)
    path = folder / CONFIG_FILE
    architectures = config.get("architectures") or ["unknown"]
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise FormatError(f"{path}: 'architectures' must be a list of texts, found {architectures!r}")
    architecture = architectures[0]
    task = task_of_class(architecture)
    if context is not None and not task.generates:
        raise UsageError(f"--context is for models that generate text, and {architecture} does not; leave it out")
    return ModelInfo(
        architecture=architecture,
        task=task.name,
        pooling="none",
        normalize=False,
        labels=_labels(config, path) if task.has_labels else (),
        max_length=_context(config, path, context) if task.generates else _max_length(config, folder, sentence),
    )


def within_tables(
    model: ModelInfo, config: dict[str, Any], folder: Path, *, limit: PositionLimit | None
) -> ModelInfo:
    """Limits sequences to what the tables of positions in the graph have rows for.

    Args:
        model: The model, with the longest sequence that its files name.
        config: Its configuration.
        folder: The ONNX folder, for messages.
        limit: What the graph allows; None sets no limit.

    Raises:
        FormatError: If the configuration claims more positions than a table has rows.
    """
    if limit is None:
        return model
    for key in _POSITIONS:
        claimed = config.get(key)
        if isinstance(claimed, int) and claimed > limit.rows:
            raise FormatError(
                f"{folder / CONFIG_FILE}: {key!r} is {claimed}, but the table {limit.table!r} in the graph has "
                f"{limit.rows} rows; export the model again"
            )
    if limit.longest < 1:
        raise FormatError(f"{folder}: the table {limit.table!r} has {limit.rows} rows, too few for one token")
    longest = limit.longest if model.max_length is None else min(model.max_length, limit.longest)
    return dataclasses.replace(model, max_length=longest)


def recipe_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the recipe that a compressed model's configuration names, or None for a float model."""
    quantization = config.get("quantization_config")
    recipe = quantization.get("recipe") if isinstance(quantization, dict) else None
    return recipe if isinstance(recipe, dict) else None


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
    path, settings = read_generation_table(folder)
    start = _token(path, settings, "decoder_start_token_id")
    if start is None:
        start = _token(path, settings, "bos_token_id")
    if start is None:
        raise FormatError(f"{path}: 'decoder_start_token_id' is missing; texts cannot start without it")
    forced = (_token(path, settings, key) for key in ("forced_bos_token_id", "forced_eos_token_id"))
    return TargetTokens(start, *forced)


def read_generation_table(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the file that says how a model generates text, and what it holds.

    It is ``generation_config.json``, which ``edgeq export`` always writes for such a model, and only where there is
    none ``config.json``; never both.

    Raises:
        FormatError: If it is damaged.
    """
    path = folder / GENERATION_FILE
    if not path.is_file():
        path = folder / CONFIG_FILE
    return path, read_json_object(path)


def source_context(folder: Path) -> int:
    """Returns the most tokens that an encoder-decoder reads.

    Raises:
        FormatError: If the configuration does not say it.
    """
    config = read_config(folder)
    return min(_context(config, folder / CONFIG_FILE, None), _max_length(config, folder, None) or 1 << 40)


def _token(path: Path, settings: dict[str, Any], key: str) -> int | None:
    token = settings.get(key)
    if token is not None and not (type(token) is int and token >= 0):
        raise FormatError(f"{path}: {key!r} must be a token id, found {token!r}")
    return None if token is None else int(token)


def read_end_ids(folder: Path) -> tuple[int, ...]:
    """Returns the tokens that end a text; none if the model has no such token.

    Raises:
        FormatError: If they are no token ids.
    """
    path, settings = read_generation_table(folder)
    end = settings.get("eos_token_id")
    if end is None:
        return ()
    ids = end if isinstance(end, list) else [end]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise FormatError(f"{path}: 'eos_token_id' must be one or several token ids, found {end!r}")
    return tuple(ids)


def _context(config: dict[str, Any], path: Path, wanted: int | None) -> int:
    positions = config.get("n_positions", config.get("max_position_embeddings"))
    if type(positions) is not int or positions < 1:
        raise FormatError(f"{path}: 'n_positions' must be a positive integer, found {positions!r}")
    if wanted is not None and not 1 <= wanted <= positions:
        raise UsageError(f"--context must lie in 1..{positions}, the positions that the model has, found {wanted}")
    return positions if wanted is None else wanted


def _max_length(config: dict[str, Any], folder: Path, sentence: SentenceModel | None) -> int | None:
    """The model's positions, or the tokenizer's limit, in whose place sentence-transformers puts its own."""
    limits = [config.get("max_position_embeddings")]
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file() and (sentence is None or sentence.max_tokens is None):
        # Tokenizers without a limit store 1e30, which is no smaller than the model's own.
        limits.append(read_json_object(tokenizer).get("model_max_length"))
    lengths = [int(limit) for limit in limits if isinstance(limit, int | float) and 1 <= limit < 1 << 40]
    return min(lengths) if lengths else None
