"""What sentence-transformers keeps beside a model: the modules behind it, prompts, longest input, similarity.

The files are read as its release 6 reads them; older releases wrote other names for the same things. Whatever this
reader does not understand it refuses by name, because it may decide what an embedding is.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.formats.json_file import read_json, read_json_object
from edgeq.formats.known_keys import KnownKeys

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the file with the longest input; the first one that holds something counts."""
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which several pooled vectors stand in one embedding, if they are given by keys of old releases."""
ACTIVATIONS = {
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "identity",
}
"""Functions behind a Dense module; torch also has them under shorter names."""
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_CLASSES = "sentence_transformers."
_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Token states become one vector.

    Attributes:
        modes: Ways of :data:`POOLING_MODES`; what each gives stands one behind the other.
        include_prompt: Whether the tokens of a prompt count.
        width: Width of a token's state, or None where the file does not say it.
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear layer on the vector.

    Attributes:
        folder: Folder with its weights.
        inputs: Width of the vector before.
        outputs: Width of the vector behind.
        bias: Whether it adds a bias.
        activation: Function on the result, a value of :data:`ACTIVATIONS`.
        residual: Whether the vector before is added to the result, through a matrix if the widths differ.
    """

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """The vector is normalised over its ``width`` numbers; the weights are in ``folder``."""

    folder: Path
    width: int


@dataclasses.dataclass(frozen=True)
class Normalize:
    """The vector is scaled to length 1."""


Step = Dense | LayerNorm | Normalize


@dataclasses.dataclass(frozen=True)
class SentenceModel:
    """How a text becomes an embedding, around the model itself.

    Attributes:
        folder: The folder that was read.
        transformer: Folder of the model itself, which may lie inside.
        is_described: Whether the folder has a ``modules.json``; otherwise this is what sentence-transformers does
            with a plain model: the mean of the token states.
        pooling: From token states to one vector; None for a cross-encoder.
        steps: What follows, in order.
        dimensions: The embedding is the first so many numbers of the vector; None takes all.
        max_tokens: Longer texts are cut to this many tokens; None leaves the limit to the tokenizer and the model.
        lower_case: Whether texts are lower-cased before anything else.
        prompts: Beginnings of texts by name.
        default_prompt: Name of the prompt that is put before every text, or None.
        similarity: How embeddings are compared, one of :data:`SIMILARITIES`.
        score_activation: What a cross-encoder puts its number through, as a class of torch; None takes its default.
    """

    folder: Path
    transformer: Path
    is_described: bool = False
    pooling: Pooling | None = Pooling()
    steps: tuple[Step, ...] = ()
    dimensions: int | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"
    score_activation: str | None = None

    @property
    def is_cross_encoder(self) -> bool:
        """Whether it scores pairs of texts, so that there is no embedding."""
        return self.pooling is None


def read_sentence_model(folder: Path) -> SentenceModel:
    """Reads what sentence-transformers keeps in a folder; ``modules.json`` decides whether there is anything.

    Raises:
        UsageError: If the folder is not there.
        FormatError: If a file is damaged or contradicts another one.
        UnsupportedError: If a file asks for something that edgeq does not do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give the folder of a model")
    if not (folder / MODULES_FILE).is_file():
        return SentenceModel(folder, folder)
    modules = _modules(folder)
    settings = KnownKeys(folder / SETTINGS_FILE, "the settings") if (folder / SETTINGS_FILE).is_file() else None
    transformer = _transformer(modules)
    table = _transformer_file(transformer)
    cross_encoder = _is_cross_encoder(settings, modules)
    pooling, steps = (None, ()) if cross_encoder else (_pooling(modules), _steps(modules[2:]))
    if cross_encoder and len(modules) > 1:
        raise _unsupported_module(modules[1])
    model = SentenceModel(
        folder,
        transformer,
        is_described=True,
        pooling=pooling,
        steps=steps,
        max_tokens=table.count("max_seq_length") if table is not None else None,
        lower_case=table.boolean("do_lower_case", False) if table is not None else False,
        **(_settings(settings) if settings is not None else {}),
    )
    if table is not None:
        _check_transformer_file(table, cross_encoder=cross_encoder)
    return model


def copy_sentence_settings(sentence: SentenceModel, out: Path) -> None:
    """Copies all but the weights of modules into a folder whose model lies at the top.

    Args:
        sentence: What :func:`read_sentence_model` returned.
        out: The folder, which exists.
    """
    if not sentence.is_described:
        return
    table = read_json(sentence.folder / MODULES_FILE)
    table[0]["path"] = ""
    (out / MODULES_FILE).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    if (sentence.folder / SETTINGS_FILE).is_file():
        shutil.copyfile(sentence.folder / SETTINGS_FILE, out / SETTINGS_FILE)
    if (found := _transformer_file(sentence.transformer)) is not None:
        shutil.copyfile(found.path, out / TRANSFORMER_FILES[0])
    for entry in table[1:]:
        (out / entry["path"]).mkdir(parents=True, exist_ok=True)
        if entry["path"] and (sentence.folder / entry["path"] / "config.json").is_file():
            shutil.copyfile(sentence.folder / entry["path"] / "config.json", out / entry["path"] / "config.json")


@dataclasses.dataclass(frozen=True)
class _Module:
    """One entry of ``modules.json``."""

    kind: str
    type: str
    folder: Path
    file: Path


def _modules(folder: Path) -> list[_Module]:
    path = folder / MODULES_FILE
    table = read_json(path)
    if not isinstance(table, list) or not table or not all(isinstance(entry, dict) for entry in table):
        raise FormatError(f"{path} is damaged: it should hold a list of modules")
    names = [entry.get("name") for entry in table if entry.get("name") is not None]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise FormatError(
            f"{path}: two modules have the name {twice!r}, of which sentence-transformers keeps one; give each its own"
        )
    return [_module(folder, path, entry) for entry in table]


def _module(folder: Path, file: Path, entry: dict[str, Any]) -> _Module:
    type_, place = entry.get("type"), entry.get("path")
    if not isinstance(type_, str) or not isinstance(place, str):
        raise FormatError(f"{file}: every module has a 'type' and a 'path', found {entry!r}")
    strange = sorted(set(entry) - {"idx", "name", "path", "type", "kwargs"})
    if strange or entry.get("kwargs"):
        raise UnsupportedError(f"{file}: module {type_!r} has {[*strange, 'kwargs'][0]!r}, which edgeq does not know")
    inside = PurePosixPath(place)
    if inside.is_absolute() or ".." in inside.parts or "\\" in place:
        raise FormatError(f"{file}: module {type_!r} lies in {place!r}, which is not inside the folder")
    if not (folder / inside).resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{file}: module {type_!r} lies in {place!r}, which leads out of the folder")
    if not type_.startswith(_CLASSES):
        raise UnsupportedError(f"{file}: module {type_!r} is code of its own, which edgeq does not run")
    return _Module(type_.rsplit(".", 1)[1], type_, folder / inside, file)


def _transformer(modules: list[_Module]) -> Path:
    if modules[0].kind != "Transformer":
        raise _unsupported_module(modules[0])
    return modules[0].folder


def _transformer_file(folder: Path) -> KnownKeys | None:
    for name in TRANSFORMER_FILES:
        if (folder / name).is_file() and read_json_object(folder / name):
            return KnownKeys(folder / name, "the tokens")
    return None


def _check_transformer_file(table: KnownKeys, *, cross_encoder: bool) -> None:
    """Refuses what the Transformer module is told beyond its longest input and the case of its texts."""
    if cross_encoder:
        table.must_be("transformer_task", "sequence-classification")
        table.take("modality_config")  # the task says all of it
        table.must_be("module_output_name", "scores")
    else:
        table.must_be("transformer_task", "feature-extraction")
        modalities = table.take("modality_config", {"text": _PLAIN_TEXT})
        text = modalities.get("text") if isinstance(modalities, dict) else None
        if not isinstance(text, dict) or {**_PLAIN_TEXT, **text} != _PLAIN_TEXT or "message" in modalities:
            raise UnsupportedError(
                f"{table.path} asks for 'modality_config' = {modalities!r}; edgeq reads plain texts, and the states "
                "of the last layer"
            )
        table.must_be("module_output_name", "token_embeddings")
    table.take("unpad_inputs")  # changes how fast it is, not what comes out
    for key in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
        table.must_be(key, None)
    for key in ("processing_kwargs", "model_args", "model_kwargs", "tokenizer_args", "processor_kwargs"):
        table.must_be(key, {}, None)
    for key in ("config_args", "config_kwargs"):
        table.must_be(key, {}, None)
    table.close()


def _is_cross_encoder(settings: KnownKeys | None, modules: list[_Module]) -> bool:
    kind = settings.take("model_type", None) if settings is not None else None
    if kind in (None, "SentenceTransformer"):
        return False
    if kind != "CrossEncoder":
        raise UnsupportedError(f"{modules[0].file.with_name(SETTINGS_FILE)}: a model of type {kind!r} is not supported")
    return True


def _settings(settings: KnownKeys) -> dict[str, Any]:
    prompts = settings.take("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise FormatError(f"{settings.path}: 'prompts' must be texts by name, found {prompts!r}")
    prompts = {name: text or "" for name, text in prompts.items()}
    default = settings.take("default_prompt_name")
    # The library itself adds these two, empty, to what a folder has.
    if default is not None and not (isinstance(default, str) and default in {*prompts, "query", "document"}):
        raise FormatError(
            f"{settings.path}: 'default_prompt_name' must be one of {', '.join(map(repr, prompts)) or 'no prompts'}, "
            f"found {default!r}"
        )
    similarity = settings.take("similarity_fn_name") or SIMILARITIES[0]
    if similarity not in SIMILARITIES:
        raise UnsupportedError(
            f"{settings.path}: similarity {similarity!r} is not supported, only {', '.join(SIMILARITIES)}"
        )
    values = {
        "prompts": prompts,
        "default_prompt": default,
        "similarity": similarity,
        "dimensions": settings.count("truncate_dim"),
        "score_activation": settings.take("activation_fn"),
    }
    for key in ("__version__", "requirements", "keep_in_fp32_modules"):  # they say nothing of the result
        settings.take(key)
    settings.close()
    return values


def _pooling(modules: list[_Module]) -> Pooling:
    if len(modules) < 2:
        raise UnsupportedError(f"{modules[0].file} names no Pooling behind the Transformer; edgeq needs one")
    if modules[1].kind != "Pooling":
        raise _unsupported_module(modules[1])
    table = KnownKeys(_config_of(modules[1]), "the pooling")
    old = {mode: table.boolean(key, False) for key, mode in _OLD_POOLING_KEYS.items()}
    modes = table.take("pooling_mode") or [mode for mode, chosen in old.items() if chosen] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not all(isinstance(mode, str) and mode in POOLING_MODES for mode in modes):
        raise UnsupportedError(
            f"{table.path}: pooling {modes!r} is not supported, only {', '.join(POOLING_MODES)} and lists of them"
        )
    wide, old_width = table.count("embedding_dimension"), table.count("word_embedding_dimension")
    pooling = Pooling(tuple(modes), table.boolean("include_prompt", True), wide or old_width)
    table.close()
    return pooling


def _steps(modules: list[_Module]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for module in modules:
        if module.kind == "Dropout":
            continue  # does nothing outside training
        if module.kind not in _STEPS:
            raise _unsupported_module(module)
        steps.append(_STEPS[module.kind](module))
    return tuple(steps)


def _dense(module: _Module) -> Dense:
    table = KnownKeys(_config_of(module), "the embedding")
    name = table.take("activation_function", "torch.nn.modules.activation.Tanh")
    known = {**ACTIVATIONS, **{f"torch.nn.{path.rsplit('.', 1)[1]}": value for path, value in ACTIVATIONS.items()}}
    if not isinstance(name, str) or name not in known:
        raise UnsupportedError(f"{table.path}: activation {name!r} is not supported, only {', '.join(ACTIVATIONS)}")
    dense = Dense(
        module.folder,
        inputs=table.size("in_features"),
        outputs=table.size("out_features"),
        bias=table.boolean("bias", True),
        activation=known[name],
        residual=table.boolean("use_residual", False),
    )
    _on_the_embedding(table)
    return dense


def _layer_norm(module: _Module) -> LayerNorm:
    table = KnownKeys(_config_of(module), "the embedding")
    norm = LayerNorm(module.folder, table.size("dimension"))
    table.close()
    return norm


def _normalize(module: _Module) -> Normalize:
    if (module.folder / "config.json").is_file() and module.folder != module.file.parent:
        _on_the_embedding(KnownKeys(module.folder / "config.json", "the embedding"))
    return Normalize()


def _on_the_embedding(table: KnownKeys) -> None:
    table.must_be("module_input_name", "sentence_embedding")
    table.must_be("module_output_name", "sentence_embedding", None)
    table.close()


_STEPS: dict[str, Any] = {"Dense": _dense, "LayerNorm": _layer_norm, "Normalize": _normalize}


def _config_of(module: _Module) -> Path:
    path = module.folder / "config.json"
    if not path.is_file():
        raise FormatError(f"{module.file} names the module {module.type!r}, but there is no {path}")
    return path


def _unsupported_module(module: _Module) -> UnsupportedError:
    return UnsupportedError(
        f"{module.file}: module {module.type!r} at this place is not supported; edgeq knows a Transformer, then a "
        "Pooling, then any of Dense, LayerNorm, Normalize and Dropout"
    )
