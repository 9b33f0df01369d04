"""What stands between texts and a compiled model, read from the files beside ``model.onnx``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.sentence_model import Normalize, SentenceModel, read_sentence_model
from edgeq.formats.tasks import GENERATING, TASKS
from edgeq.targets.bundle.model_info import CONFIG_FILE
from edgeq.targets.runtime.schema import ModelInfo, TensorSpec
from edgeq.targets.runtime.text_info import EMBEDDING, POOLING_MASK, SIDES, TextInfo

_TOKENIZER_SETTINGS = "tokenizer_config.json"
_SIMPLE_POOLINGS = ("mean", "cls", "max")
_PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")
_SCORES_OF_CROSS_ENCODERS = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
}


def read_text_info(folder: Path, config: dict[str, Any], *, task: str, classes: int = 0) -> TextInfo:
    """Reads how texts are prepared and what results mean.

    Args:
        folder: The ONNX folder.
        config: Its ``config.json``.
        task: What the model is for.
        classes: Logits of a classifier.

    Raises:
        FormatError: If a file is damaged or contradicts the graph.
        UnsupportedError: If a file asks for something that the runtimes do not do.
    """
    sentence = read_sentence_model(folder)
    activation = sentence.score_activation or _cross_encoder_activation(config)
    return TextInfo(
        prompts=sentence.prompts,
        default_prompt=sentence.default_prompt if sentence.default_prompt in sentence.prompts else None,
        max_tokens=sentence.max_tokens,
        cuts=sentence.is_described or activation is not None,
        cut_side=_cut_side(sentence.transformer),
        similarity=sentence.similarity,
        scores=_scores(sentence, folder / CONFIG_FILE, config, classes) if task == "classify" else "none",
    )


def with_pooling(model: ModelInfo, folder: Path, outputs: Sequence[TensorSpec]) -> ModelInfo:
    """Says how the runtimes make an embedding where the graph does not.

    Graphs that ``edgeq export`` wrote do it themselves.

    Raises:
        UnsupportedError: If a graph without embeddings stands in a folder whose embeddings the runtimes cannot make.
    """
    if model.task != "embed" or any(spec.name == EMBEDDING for spec in outputs):
        return model
    sentence = read_sentence_model(folder)
    pooling = sentence.pooling
    simple = pooling is not None and len(pooling.modes) == 1 and pooling.modes[0] in _SIMPLE_POOLINGS
    simple = simple and sentence.dimensions is None and all(isinstance(step, Normalize) for step in sentence.steps)
    if not simple:
        raise UnsupportedError(
            f"the graph in {folder} has no output {EMBEDDING!r}, and its folder asks for more than a mean, a first "
            "token or a maximum of token states; export the model with `edgeq export`"
        )
    if pooling is not None and not pooling.include_prompt and any(sentence.prompts.values()):
        raise UnsupportedError(f"the graph in {folder} has no input {POOLING_MASK!r}; export it with `edgeq export`")
    mode = pooling.modes[0] if pooling is not None else "none"
    return dataclasses.replace(model, pooling=mode, normalize=bool(sentence.steps))


def check_outputs(model: ModelInfo, folder: Path, outputs: Sequence[TensorSpec]) -> None:
    """Raises :class:`FormatError` if the graph has not the outputs of what ``config.json`` says that it is."""
    if model.task == "embed" or model.task in GENERATING:
        return  # embeddings are made of whatever states there are, and the compiler has looked at decoders
    found = {spec.name: spec.shape for spec in outputs}
    for name, leading in TASKS[model.task].outputs.items():
        rank = len(leading) + (name == "logits")
        shape = found.get(name, ())
        if len(shape) != rank or shape[: len(leading)] != leading:
            raise FormatError(
                f"{folder / CONFIG_FILE} names {model.architecture}, whose output is {name!r} of {rank} dimensions "
                f"({', '.join(leading)} first), and the graph gives "
                f"{', '.join(f'{one!r} {list(of)}' for one, of in found.items())}; export the model again"
            )


def check_labels(model: ModelInfo, folder: Path, *, classes: int) -> None:
    """Raises :class:`FormatError` unless a classifier has a name for each logit, or for none."""
    if model.labels and len(model.labels) != classes:
        raise FormatError(
            f"{folder / CONFIG_FILE} names {len(model.labels)} labels, the graph has {classes} logits; "
            "export the model again"
        )


def _scores(sentence: SentenceModel, path: Path, config: dict[str, Any], classes: int) -> str:
    """What transformers' pipeline does, a cross-encoder, or in a folder that is also a cross-encoder's both of them.

    A folder that sentence-transformers describes as a cross-encoder gives what that makes of each logit. A plain
    classifier that was saved by an older release gives so for one number only: pipelines call it as well.
    """
    activation = sentence.score_activation or _cross_encoder_activation(config)
    problem = config.get("problem_type")
    if problem not in _PROBLEMS:
        raise FormatError(f"{path}: 'problem_type' must be one of {', '.join(map(str, _PROBLEMS))}, found {problem!r}")
    if activation is not None and (classes == 1 or sentence.is_cross_encoder):
        if activation not in _SCORES_OF_CROSS_ENCODERS:
            raise UnsupportedError(
                f"{path.parent}: activation {activation!r} of a cross-encoder is not supported, only "
                f"{', '.join(_SCORES_OF_CROSS_ENCODERS)}"
            )
        return _SCORES_OF_CROSS_ENCODERS[activation]
    if sentence.is_cross_encoder:
        return "sigmoid" if classes == 1 else "none"
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or classes == 1 else "softmax"


def _cross_encoder_activation(config: dict[str, Any]) -> Any:
    """The function on the logits that a cross-encoder's configuration names, by the key of new or of old releases."""
    stored = config.get("sentence_transformers")
    if isinstance(stored, dict) and "activation_fn" in stored:
        return stored["activation_fn"]
    return config.get("sbert_ce_default_activation_function")


def _cut_side(folder: Path) -> str:
    path = folder / _TOKENIZER_SETTINGS
    side = read_json_object(path).get("truncation_side", "right") if path.is_file() else "right"
    if side not in SIDES:
        raise FormatError(f"{path}: 'truncation_side' must be left or right, found {side!r}")
    return str(side)
