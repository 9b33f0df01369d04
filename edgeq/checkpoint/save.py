"""Writes checkpoint folders, compressed and float."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import transformers

from edgeq.checkpoint.config import read_config
from edgeq.factor.cost import Evaluate
from edgeq.factor.insert import factor_specs
from edgeq.factor.manifest import FactorManifest
from edgeq.files import Output, new_folder
from edgeq.formats.sentence_model import copy_sentence_settings, read_sentence_model
from edgeq.hf import EdgeqConfig
from edgeq.models.generation_config import generation_settings, write_generation_settings
from edgeq.models.sentence import copy_module_weights
from edgeq.quant.manifest import manifest_of
from edgeq.quant.plan import CompressionResult
from edgeq.quiet import quiet_transformers
from edgeq.reading import sha256
from edgeq.weight_files import WEIGHTS_NAME

OUTPUT = Output("compress")


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    folder: Path | str,
    *,
    result: CompressionResult,
    settings_from: Path | None = None,
    evaluate: Evaluate = "auto",
    generation: dict[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Writes a compressed model as a folder that ``from_pretrained`` loads after ``import edgeq.hf``.

    Args:
        model: The compressed ``transformers`` model.
        tokenizer: Its tokenizer.
        folder: Where to write; an earlier output of ``edgeq compress`` is replaced when all is written.
        result: What :func:`edgeq.recipes.apply_recipe` returned.
        settings_from: Folder whose settings beside the model are kept: those of sentence-transformers, and how texts
            are made.
        evaluate: How factorised layers are to be computed.
        generation: How texts are generated, instead of what ``settings_from`` says.
        force: Replace whatever is there.

    Raises:
        UsageError: If ``folder`` holds something else than such an output.
    """
    factors = FactorManifest(factor_specs(model), evaluate)
    manifest = dataclasses.replace(manifest_of(model, result), factors=factors.to_json())
    settings = _Settings(model, settings_from, generation)
    with new_folder(Path(folder), OUTPUT, force=force) as temporary:
        model.config.quantization_config = EdgeqConfig.from_dict(manifest.to_json())
        try:
            settings.save_model(temporary)
        finally:
            del model.config.quantization_config
        (temporary / WEIGHTS_NAME).chmod(0o644)  # safetensors creates it for its owner only
        manifest.files[WEIGHTS_NAME] = sha256(temporary / WEIGHTS_NAME)
        values = read_config(temporary)
        values["quantization_config"] = manifest.to_json()
        text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        tokenizer.save_pretrained(temporary)
        settings.write(temporary)


def save_float_checkpoint(
    model: Any,
    tokenizer: Any,
    folder: Path | str,
    *,
    settings_from: Path | None = None,
    generation: dict[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Writes a float model as a plain checkpoint; the arguments are those of :func:`save_checkpoint`."""
    settings = _Settings(model, settings_from, generation)
    with new_folder(Path(folder), OUTPUT, force=force) as temporary:
        settings.save_model(temporary)
        (temporary / WEIGHTS_NAME).chmod(0o644)  # safetensors creates it for its owner only
        tokenizer.save_pretrained(temporary)
        settings.write(temporary)


class _AnySettings(transformers.GenerationConfig):
    """Settings that are saved as they are: people's files hold what ``save_pretrained`` would refuse to write."""

    def validate(self, *_: Any, **__: Any) -> None:
        """Takes everything; what counts is written by :meth:`_Settings.write`."""


class _Settings:
    """What decides results beside the model: sentence-transformers' files, and how texts are generated.

    It is read before the model is saved: ``save_pretrained`` moves settings from ``config.json`` to
    ``generation_config.json``, where they count for more.
    """

    def __init__(self, model: Any, source: Path | None, generation: dict[str, Any] | None) -> None:
        self._model = model
        self._sentence = read_sentence_model(source) if source is not None else None
        self._generation = generation
        if generation is None and self._sentence is not None and model.can_generate():
            self._generation = generation_settings(model, self._sentence.transformer)

    def save_model(self, folder: Path) -> None:
        """Writes weights and configuration."""
        own = getattr(self._model, "generation_config", None)
        if self._generation is not None:
            self._model.generation_config = _AnySettings()
        try:
            with quiet_transformers():
                self._model.save_pretrained(folder, max_shard_size="100GB")
        finally:
            if self._generation is not None:
                self._model.generation_config = own

    def write(self, folder: Path) -> None:
        """Writes the files into a folder that ``save_pretrained`` has written."""
        if self._sentence is not None:
            copy_sentence_settings(self._sentence, folder)
            copy_module_weights(self._sentence, folder)
        if self._generation is not None:
            write_generation_settings(self._generation, folder)
