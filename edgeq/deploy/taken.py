"""What a run took from the model's folder: pooling, prompts, limits, scores, settings, and the file that says each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.formats.json_file import read_json, read_json_object
from edgeq.formats.sentence_model import (
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILES,
    Dense,
    LayerNorm,
    Normalize,
    SentenceModel,
    read_sentence_model,
)
from edgeq.formats.tasks import GENERATING
from edgeq.models import ModelAdapter
from edgeq.results import Taken
from edgeq.targets.bundle.generation_config import read_generation_settings
from edgeq.targets.bundle.model_info import CONFIG_FILE, read_generation_table
from edgeq.targets.bundle.text_settings import read_text_info

_TOKENIZER_FILE = "tokenizer_config.json"
_DEFAULT = "default"
_MODES = {
    "cls": "the first token",
    "max": "the maximum over the tokens",
    "mean": "the mean of the tokens",
    "mean_sqrt_len_tokens": "the sum of the tokens over the root of their number",
    "weightedmean": "the mean of the tokens, later ones weighted more",
    "lasttoken": "the last token",
}
_SCORES = {
    "none": "the model's own numbers",
    "sigmoid": "the sigmoid of each logit",
    "softmax": "the softmax of all logits",
}


def taken_from(folder: Path, adapter: ModelAdapter) -> list[Taken]:
    """Says what decides results beside the weights, as the files of the float model say it.

    Args:
        folder: The float model.
        adapter: The adapter of what was made of it.

    Raises:
        FormatError: If a file is damaged.
        UnsupportedError: If a file asks for something that edgeq does not do.
    """
    sentence = read_sentence_model(folder)
    config = read_json_object(sentence.transformer / CONFIG_FILE)
    task = adapter.task
    rows: list[Taken] = []
    if task in GENERATING:
        rows += _generation(sentence, with_encoder=task == "seq2seq")
    elif task == "embed":
        rows += _embedding(sentence)
    if task == "classify":
        rows.append(_scores(sentence, config, classes=len(adapter.labels)))
    if task not in GENERATING:
        rows.append(_prompts(sentence))
    rows.append(_limit(sentence, adapter))
    if sentence.lower_case:
        rows.append(Taken("case", "texts are lower-cased first", _transformer_file(sentence)))
    return rows


def _embedding(sentence: SentenceModel) -> list[Taken]:
    if not sentence.is_described or sentence.pooling is None:
        what = "the mean of the tokens, as sentence-transformers does with a plain model"
        return [Taken("pooling", what, f"{_DEFAULT} (no {MODULES_FILE})"), _normalisation(sentence)]
    pooling = sentence.pooling
    value = " and ".join(_MODES[mode] for mode in pooling.modes)
    value += "" if pooling.include_prompt else ", without those of the prompt"
    rows = [Taken("pooling", value, _module_file(sentence, "Pooling"))]
    for step in sentence.steps:
        if isinstance(step, Dense):
            size = f"{step.inputs} to {step.outputs}, {step.activation}"
            rows.append(Taken("dense layer", size, _inside(sentence, step.folder / CONFIG_FILE)))
        elif isinstance(step, LayerNorm):
            rows.append(Taken("layer norm", f"over {step.width}", _inside(sentence, step.folder / CONFIG_FILE)))
    rows.append(_normalisation(sentence))
    if sentence.dimensions is not None:
        rows.append(Taken("dimensions", f"the first {sentence.dimensions}", SETTINGS_FILE))
    return [*rows, Taken("similarity", sentence.similarity, _settings_file(sentence))]


def _normalisation(sentence: SentenceModel) -> Taken:
    normalised = any(isinstance(step, Normalize) for step in sentence.steps)
    file = MODULES_FILE if sentence.is_described else f"{_DEFAULT} (no {MODULES_FILE})"
    return Taken("normalisation", "to length 1" if normalised else "none", file)


def _prompts(sentence: SentenceModel) -> Taken:
    named = {name: text for name, text in sentence.prompts.items() if text}
    if not named:
        return Taken("prompt", "none", _settings_file(sentence))
    default = sentence.default_prompt if sentence.default_prompt in named else None
    listed = ", ".join(f"{name} {text!r}" for name, text in named.items())
    return Taken("prompt", f"{default or 'none'} by default, of {listed}", SETTINGS_FILE)


def _limit(sentence: SentenceModel, adapter: ModelAdapter) -> Taken:
    """The smallest of the limits, and what happens to a text that is longer."""
    positions = (adapter.max_positions, CONFIG_FILE)
    limits: list[tuple[Any, str]] = [positions]
    if sentence.max_tokens is not None:
        limits.append((sentence.max_tokens, _transformer_file(sentence)))
    path = sentence.transformer / _TOKENIZER_FILE
    if adapter.task not in GENERATING and path.is_file() and sentence.max_tokens is None:
        limits.append((read_json_object(path).get("model_max_length"), _inside(sentence, path)))
    known = [(int(count), file) for count, file in limits if isinstance(count, int | float) and count >= 1]
    count, file = min(known, key=lambda limit: limit[0])
    longer = "of prompt and new text together"
    if adapter.task not in GENERATING:
        config = read_json_object(sentence.transformer / CONFIG_FILE)
        info = read_text_info(sentence.folder, config, task="embed")
        longer = f"longer texts are cut on the {info.cut_side}" if info.cuts else "longer texts are refused"
    return Taken("limit", f"{count} tokens; {longer}", file)


def _scores(sentence: SentenceModel, config: dict[str, Any], *, classes: int) -> Taken:
    info = read_text_info(sentence.folder, config, task="classify", classes=classes)
    if sentence.score_activation is not None:
        file = SETTINGS_FILE
    elif config.get("problem_type") is not None:
        file = f"{CONFIG_FILE} (problem_type {config['problem_type']!r})"
    else:
        file = f"{CONFIG_FILE} (no problem_type, {classes} label{'s' if classes > 1 else ''})"
    return Taken("scores", _SCORES[info.scores], file)


def _generation(sentence: SentenceModel, *, with_encoder: bool) -> list[Taken]:
    settings = read_generation_settings(sentence.transformer, with_source=with_encoder)
    path, _ = read_generation_table(sentence.transformer)
    sampling, beams = settings.sampling, settings.beams
    if sampling.temperature:
        filters = f"temperature {sampling.temperature:g}, top_k {sampling.top_k}, top_p {sampling.top_p:g}"
        how = f"drawn by chance ({filters})"
    else:
        how = f"beam search with {beams.count} beams" if beams.count > 1 else "the most likely token"
    rules = [
        f"{name} {value:g}"
        for name, value, neutral in (
            ("length_penalty", beams.length_penalty, 1.0),
            ("repetition_penalty", sampling.repetition_penalty, 1.0),
            ("no_repeat_ngram_size", settings.no_repeat_ngram_size, 0),
            ("min_length", settings.min_length, 0),
        )
        if value != neutral
    ]
    lengths = ("max_length", "max_new_tokens", "min_new_tokens")
    rules += [f"{name} {value}" for name in lengths if (value := getattr(settings, name)) is not None]
    return [Taken("generation", ", ".join([how, *rules]), _inside(sentence, path))]


def _module_file(sentence: SentenceModel, kind: str) -> str:
    for entry in read_json(sentence.folder / MODULES_FILE):
        if str(entry["type"]).endswith(f".{kind}"):
            return _inside(sentence, sentence.folder / entry["path"] / CONFIG_FILE)
    return MODULES_FILE


def _settings_file(sentence: SentenceModel) -> str:
    return SETTINGS_FILE if (sentence.folder / SETTINGS_FILE).is_file() else f"{_DEFAULT} (no {SETTINGS_FILE})"


def _transformer_file(sentence: SentenceModel) -> str:
    names = [name for name in TRANSFORMER_FILES if (sentence.transformer / name).is_file()]
    return _inside(sentence, sentence.transformer / names[0]) if names else MODULES_FILE


def _inside(sentence: SentenceModel, path: Path) -> str:
    return path.relative_to(sentence.folder).as_posix() if path.is_relative_to(sentence.folder) else str(path)
