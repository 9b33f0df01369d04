"""The settings that a model generates text with: transformers' rule for the two files that may hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from edgeq.errors import FormatError
from edgeq.formats.json_file import read_json_object
from edgeq.models.transformers_release import RELEASE

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
_FROM_CONFIG = "_from_model_config"
_ABOUT_THE_FILE = (_FROM_CONFIG, "transformers_version")


def generation_settings(model: Any, folder: Path) -> dict[str, Any]:
    """Returns the settings that ``generate`` of transformers takes for a model of a folder.

    They are those of ``generation_config.json``. Those of ``config.json`` count where there is no such file, or where
    it says that it was made of them and ``config.json`` holds any that is not the default of its family.

    Args:
        model: The loaded model.
        folder: Where it was loaded from.

    Raises:
        FormatError: If ``generation_config.json`` is damaged.
    """
    path = folder / GENERATION_FILE
    if path.is_file():
        stored = read_json_object(path)
        own: dict[str, Any] = getattr(model.config, "_get_non_default_generation_parameters", dict)()
        if not (stored.get(_FROM_CONFIG) is True and own):
            return {key: value for key, value in stored.items() if key != _FROM_CONFIG}
    derived = settings_of_config(model, folder).to_diff_dict()
    return {key: value for key, value in derived.items() if key not in _ABOUT_THE_FILE}


def settings_of_config(model: Any, folder: Path) -> Any:
    """Returns the ``GenerationConfig`` that transformers makes of ``config.json``.

    Release 5 takes settings out of a configuration as it reads it, and reads the file once more for them.

    Args:
        model: The loaded model.
        folder: Where it was loaded from.

    Raises:
        FormatError: If ``config.json`` holds settings that transformers refuses.
    """
    try:
        if RELEASE < 5:
            return transformers.GenerationConfig.from_model_config(model.config)
        return transformers.GenerationConfig.from_pretrained(
            folder, config_file_name=CONFIG_FILE, local_files_only=True, _from_model_config=True
        )
    except Exception as error:  # the class checks values with whatever exception is at hand
        what = " ".join(str(error).split())[:300]
        raise FormatError(f"{folder / CONFIG_FILE} holds settings that transformers refuses: {what}") from error


def write_generation_settings(settings: dict[str, Any], folder: Path) -> None:
    """Writes ``generation_config.json``, from which they count whatever ``config.json`` says."""
    text = json.dumps(settings, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / GENERATION_FILE).write_text(text, encoding="utf-8")
