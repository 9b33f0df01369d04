"""Checkpoint folders: loading float and compressed ones with all checks, and saving compressed ones."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import normalizers
from torch import nn

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.factor.cost import Evaluate
from edgeq.factor.evaluation import Choice, apply_choices, call_tokens, choose
from edgeq.factor.insert import factor_specs, insert_factor_modules
from edgeq.factor.manifest import FactorManifest
from edgeq.files import Output, new_folder
from edgeq.finite import check_finite
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.sentence_model import SentenceModel, copy_sentence_settings, read_sentence_model
from edgeq.formats.tensor_header import TensorEntry, read_tensor_header
from edgeq.formats.tokenizer_files import check_tokenizer_files
from edgeq.hf import EdgeqConfig, check_scales, verify_packed_files
from edgeq.memory import give_back
from edgeq.models import ModelAdapter, adapter_classes, adapter_for, check_family, is_of_pretraining, tasks_of
from edgeq.models.generation_config import generation_settings, settings_of_config, write_generation_settings
from edgeq.models.sentence import SentenceHead, copy_module_weights
from edgeq.models.transformers_release import (
    RELEASE,
    TOKENIZER_OF_RELEASE_5,
    in_words_of_release,
    other_names,
    renamed_for_release,
)
from edgeq.quant.manifest import QUANT_METHOD, PackedTensor, QuantizationManifest
from edgeq.quant.plan import CompressionResult
from edgeq.quiet import quiet_transformers
from edgeq.reading import sha256
from edgeq.tensor_names import fit_names, heads_in
from edgeq.weight_files import WEIGHTS_NAME, WeightFiles, find_weights

OUTPUT = Output("compress")
_ADAPTER_CONFIG = "adapter_config.json"
_GENERATION_FILE = "generation_config.json"
_COMMON_PREFIXES = {"model", "transformer"}  # of many families


@dataclasses.dataclass
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        folder: Where it came from.
        model: The model in evaluation mode, float32.
        tokenizer: Its tokenizer.
        adapter: The adapter of its architecture.
        manifest: Description of its packed tensors, or None for a float checkpoint.
        sentence: What sentence-transformers keeps beside it; what it does with a plain model if there is nothing.
        choices: How its factorised layers are computed.
        remarks: What the user should know of how it was read.
    """

    folder: Path
    model: Any
    tokenizer: Any
    adapter: ModelAdapter
    manifest: QuantizationManifest | None
    sentence: SentenceModel
    choices: tuple[Choice, ...] = ()
    remarks: tuple[str, ...] = ()


def load_checkpoint(folder: Path | str, *, task: str | None = None) -> Checkpoint:
    """Loads a checkpoint folder, float or compressed, and checks it before taking memory.

    Factorised layers are set to compute the way that costs least, or that the recipe asked for.

    Args:
        folder: The folder: weights as safetensors, in one file or several, or as ``pytorch_model.bin``.
        task: What to make of a float checkpoint, by ``transformers``' name; None takes what it was made for.

    Raises:
        UsageError: If the folder or one of its files is missing, or it does not hold what the task needs.
        UnsupportedError: If the architecture is unknown, or the weights are in another format.
        FormatError: If a file is damaged or contradicts another one.
    """
    sentence = read_sentence_model(Path(folder))
    folder = sentence.transformer
    values = read_config(folder)
    quantization = values.get("quantization_config")
    manifest = None if quantization is None else QuantizationManifest.from_json(quantization)
    weights = find_weights(folder)
    config = _parse_config(folder, values, weights)
    adapter = adapter_for(config, task, exact=manifest is not None)
    remarks = [weights.remark] if weights.remark is not None else []
    if manifest is None:
        named = config.architectures[0] if config.architectures else None
        model = _load_float(folder, adapter, weights, chosen=task is not None or named is not None)
        if task is None and named not in (None, adapter.architecture):
            remarks.append(f"config.json names {named}: taken as {adapter.architecture} (--task chooses otherwise)")
    else:
        model = _checked_compressed(folder, adapter, manifest, weights)
    factors = FactorManifest.from_json(manifest.factors if manifest else {})
    check_scales(model)
    check_finite([*model.named_parameters(), *model.named_buffers()], where=str(folder))
    choices = choose(model, evaluate=factors.evaluate, tokens=call_tokens(adapter))
    apply_choices(model, choices)
    if adapter.task == "embed" and not sentence.is_cross_encoder:
        adapter.sentence = SentenceHead(sentence, width=int(config.hidden_size))
    tokenizer = load_tokenizer(folder, lower_case=sentence.lower_case)
    give_back()
    return Checkpoint(
        sentence.folder, model, tokenizer, adapter, manifest, sentence, tuple(choices), remarks=tuple(remarks)
    )


def _checked_compressed(
    folder: Path, adapter: ModelAdapter, manifest: QuantizationManifest, weights: WeightFiles
) -> nn.Module:
    path = folder / WEIGHTS_NAME
    if weights.paths != (path,):
        raise UsageError(f"{folder} holds no {WEIGHTS_NAME}, in which edgeq stores compressed models")
    _check_packed_tensors(path, read_tensor_header(path), manifest)
    verify_packed_files(folder, manifest)
    _check_claimed_size(empty_model(folder, adapter), folder, manifest, weights)
    return _load_compressed(folder, adapter, manifest)


def read_adapter(folder: Path, *, task: str | None = None) -> ModelAdapter:
    """Returns the adapter of a checkpoint folder without loading its weights.

    Raises:
        UsageError: If the folder or one of its files is missing.
        UnsupportedError: If the architecture is unknown.
        FormatError: If a file is damaged.
    """
    folder = read_sentence_model(folder).transformer
    values = read_config(folder)
    return adapter_for(_parse_config(folder, values, find_weights(folder)), task, exact=_names_method(values))


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
        raise UsageError(f"{folder} is not a model folder: it holds no config.json; give a Hugging Face checkpoint")
    return read_json_object(path)


def load_tokenizer(folder: Path, *, lower_case: bool = False) -> Any:
    """Loads the tokenizer of a checkpoint folder.

    Args:
        folder: The folder.
        lower_case: Lower-case texts before anything else, as sentence-transformers can be told to.

    Raises:
        FormatError: If there is none, or it is damaged.
    """
    check_tokenizer_files(folder)
    try:
        with quiet_transformers():
            tokenizer = _tokenizer(folder)
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise FormatError(f"the tokenizer in {folder} cannot be loaded: {_one_line(error)}") from error
    # Some publishers leave "pad everything to 128" in tokenizer.json; edgeq pads and cuts by itself.
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        if lower_case:
            _lower_case_first(tokenizer.backend_tokenizer)
    elif lower_case:
        raise UnsupportedError(f"{folder}: 'do_lower_case' is not supported for a tokenizer that is Python code")
    return tokenizer


def _tokenizer(folder: Path) -> Any:
    """Release 5 has other names for the class that ``tokenizer.json`` describes, and for further special tokens."""
    path = folder / "tokenizer_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    kind: Any = transformers.AutoTokenizer
    options: dict[str, Any] = {}
    if RELEASE < 5 and settings.get("tokenizer_class") == TOKENIZER_OF_RELEASE_5:
        kind = transformers.PreTrainedTokenizerFast
    if RELEASE < 5 and isinstance(further := settings.get("extra_special_tokens"), list):
        options = {"extra_special_tokens": {}, "additional_special_tokens": further}
    return kind.from_pretrained(folder, local_files_only=True, **options)


def _lower_case_first(backend: Any) -> None:
    """Puts a lower-casing step before the others, unless there is one."""
    before = backend.normalizer
    stored = json.loads(backend.to_str())["normalizer"] or {}
    steps = stored.get("normalizers", [stored])
    if any(step.get("type") == "Lowercase" or step.get("lowercase") is True for step in steps):
        return
    parts = list(before) if isinstance(before, normalizers.Sequence) else [before] if before is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])


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
        generation: How texts are made, instead of what ``settings_from`` says.
        force: Replace whatever is there.

    Raises:
        UsageError: If ``folder`` holds something else than such an output.
    """
    factors = FactorManifest(factor_specs(model), evaluate)
    manifest = dataclasses.replace(QuantizationManifest.of_model(model, result), factors=factors.to_json())
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
    """What decides results beside the model: sentence-transformers' files, and how texts are made.

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


def _parse_config(folder: Path, values: dict[str, Any], weights: WeightFiles) -> Any:
    path = folder / "config.json"
    plain = {key: value for key, value in values.items() if key != "quantization_config"}
    if plain.get("auto_map"):
        raise UnsupportedError(f"{path} brings code of its own (auto_map), which edgeq does not run")
    if (folder / _ADAPTER_CONFIG).exists():
        raise UnsupportedError(f"{folder / _ADAPTER_CONFIG} describes an adapter (PEFT); merge it into the model first")
    model_type = plain.get("model_type") or _model_type(plain.get("architectures"), weights.tensors)
    plain["model_type"] = model_type
    plain = in_words_of_release(plain)
    if model_type is None:
        raise UsageError(f"{path} names no model_type, and the names of the tensors do not tell it; add it")
    if not isinstance(model_type, str) or model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        raise UnsupportedError(f"{path}: model type {model_type!r} is unknown")
    architectures = plain.get("architectures")
    check_family(model_type, str(architectures[0]) if isinstance(architectures, list) and architectures else None)
    try:
        return transformers.AutoConfig.for_model(**plain)
    except Exception as error:  # config classes check values with whatever exception is at hand
        raise FormatError(f"{path} is damaged: {_one_line(error)}") from error


def _model_type(architectures: object, tensors: Iterable[str]) -> str | None:
    """What configurations older than ``model_type`` mean: told by a class, or by what names of tensors begin with."""
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    begins = {name.partition(".")[0] for name in tensors}
    for family, adapters in adapter_classes().items():
        for adapter in adapters:
            prefixes = {adapter.class_named(architecture).base_model_prefix for architecture in adapter.architectures}
            if named in adapter.architectures or (prefixes - _COMMON_PREFIXES) & begins:
                return family
    return None


def _check_packed_tensors(path: Path, header: dict[str, TensorEntry], manifest: QuantizationManifest) -> None:
    """Compares what config.json says about packed tensors with what the weight file holds."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for module, tensor in manifest.tensors.items():
        expected |= _expected_tensors(module, tensor)
    for module, layer in manifest.tied.items():
        if layer.bias:
            expected[f"{module}.bias"] = ("F32", (manifest.tensors[layer.table].spec.rows,))
    for name, (dtype, shape) in expected.items():
        entry = next((header[one] for one in (name, *other_names(name)) if one in header), None)
        if entry is None:
            raise FormatError(f"{path} lacks tensor {name!r}, which config.json describes")
        if (entry.dtype, entry.shape) != (dtype, shape):
            raise FormatError(
                f"{path}: tensor {name!r} should be {dtype} of shape {list(shape)}, "
                f"found {entry.dtype} of shape {list(entry.shape)}"
            )


def _expected_tensors(module: str, tensor: PackedTensor) -> dict[str, tuple[str, tuple[int, ...]]]:
    spec: PackedMatrix = tensor.spec
    expected = {
        f"{module}.weight_packed": ("U8", tuple(spec.packed_shape)),
        f"{module}.scale": ("F32", (spec.scales,)),
    }
    if tensor.bias:
        expected[f"{module}.bias"] = ("F32", (spec.rows,))
    if tensor.activation == "static":
        expected[f"{module}.activation_scale"] = ("F32", (1,))
    return expected


def _check_claimed_size(model: nn.Module, folder: Path, manifest: QuantizationManifest, weights: WeightFiles) -> None:
    """Refuses a config.json whose model could not fit in the weight file, before memory is taken for it."""
    insert_factor_modules(model, FactorManifest.from_json(manifest.factors).for_model(model))
    modules = dict(model.named_modules())
    for name in manifest.tied:
        if name in modules:
            model.set_submodule(name, nn.Identity())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > 8 * weights.bytes:  # one bit a weight is the least that any format takes
        raise FormatError(
            f"{folder / 'config.json'} describes {parameters} parameters, which cannot be in "
            f"{WEIGHTS_NAME} of {weights.bytes} bytes: one of the two is damaged"
        )


def empty_model(folder: Path, adapter: ModelAdapter) -> nn.Module:
    """Returns the model as ``config.json`` describes it, without memory for its weights.

    Raises:
        FormatError: If no such model can be made.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = adapter.model_class(adapter.config, **adapter.model_options)
    except Exception as error:  # layers check the values they are given with whatever exception is at hand
        raise FormatError(
            f"{folder / 'config.json'} describes no possible model: {_one_line(error)}"
        ) from error
    return model


def _load_compressed(folder: Path, adapter: ModelAdapter, manifest: QuantizationManifest) -> nn.Module:
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    modules = dict(empty_model(folder, adapter).named_children())
    renamed = {new: old for new, old in renamed_for_release().items() if old in modules}
    options["key_mapping"] = {rf"^{new}\.": f"{old}." for new, old in renamed.items()} or None
    # Not the file's own words, which release 4 would read past where release 5 wrote them.
    options["config"] = copy.deepcopy(adapter.config)
    options["config"].quantization_config = manifest.to_json()
    with quiet_transformers():
        try:
            model, info = adapter.model_class.from_pretrained(folder, output_loading_info=True, **options)
        except EdgeqError:
            raise
        except Exception as error:  # transformers reports files that disagree by whatever then fails
            raise FormatError(f"the model in {folder} cannot be loaded: {_one_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise FormatError(f"{folder / WEIGHTS_NAME} lacks tensor {missing[0]!r} of {adapter.architecture}")
    module: nn.Module = model.eval()
    return module


def _load_float(folder: Path, adapter: ModelAdapter, weights: WeightFiles, *, chosen: bool) -> nn.Module:
    """Loads a float checkpoint in whatever files and under whatever names the hub has it."""
    where = weights.paths[0] if len(weights.paths) == 1 else folder
    prefix = adapter.model_class.base_model_prefix
    if not chosen:
        _check_no_other_head(weights, adapter, prefix, where)
    expected = _shapes(empty_model(folder, adapter))
    for optional_module in adapter.optional_modules:
        is_stored = any(f".{optional_module}." in f".{name}" for name in weights.tensors)
        if not is_stored and any(name.startswith(f"{optional_module}.") for name in expected):
            adapter.config.add_pooling_layer = False
            expected = _shapes(empty_model(folder, adapter))
    tied = {f"{name}.weight" for name in adapter.tied_names}
    unstored = {*adapter.zero_buffers, *adapter.computed_names}
    optional = [name for name in expected if name in tied or name in unstored]
    places = fit_names(
        weights.tensors,
        expected,
        prefix=prefix,
        config=adapter.config,
        optional=optional,
        repeated=adapter.repeated_names,
        where=where,
    )
    names = {stored: name for name, stored in places.items()}
    state = {names[stored]: tensor for stored, tensor in weights.items() if stored in names}
    _complete_repeated(state, adapter, where)
    with quiet_transformers():
        try:
            model = adapter.model_class.from_pretrained(
                None, config=adapter.config, state_dict=state, dtype=torch.float32, **adapter.model_options
            )
        except Exception as error:  # transformers reports what it dislikes by whatever then fails
            raise FormatError(f"the model in {folder} cannot be loaded: {_one_line(error)}") from error
        if model.can_generate():
            is_file = (folder / _GENERATION_FILE).is_file()
            stored = _generation_config(folder / _GENERATION_FILE) if is_file else settings_of_config(model, folder)
            model.generation_config = stored
    module: nn.Module = model.eval()
    return module


def _generation_config(path: Path) -> Any:
    values = read_json_object(path)
    try:
        return transformers.GenerationConfig.from_dict(values)
    except Exception as error:  # the class checks values with whatever exception is at hand
        raise FormatError(f"{path} holds settings that transformers refuses: {_one_line(error)}") from error


def _complete_repeated(state: dict[str, torch.Tensor], adapter: ModelAdapter, where: Path) -> None:
    """Gives a tensor that a model has under two names both of them, whichever is stored."""
    for one, other in adapter.repeated_names.items():
        first, second = state.get(one), state.get(other)
        if first is not None and second is not None and adapter.tied_names and not torch.equal(first, second):
            raise FormatError(
                f"{where} holds {one!r} and {other!r} with different values, which are one tensor of "
                f"{adapter.architecture}; give the checkpoint as transformers saves it"
            )
        # Release 5 keeps two of them where the matrix is not tied either, of which the layer reads its own.
        found = second if second is not None else first
        if found is not None:
            state[one] = state[other] = found


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_no_other_head(weights: WeightFiles, adapter: ModelAdapter, prefix: str, where: Path) -> None:
    """Refuses to guess where nothing names a class and the weights hold the head of another than the default."""
    heads = heads_in(weights.tensors, prefix=prefix, config=adapter.config)
    others = [
        name
        for name in heads
        if name != adapter.architecture and name in adapter.architectures and not is_of_pretraining(name)
    ]
    if others:
        tasks = " or ".join(tasks_of([adapter.architecture, *others]))
        raise UsageError(
            f"{where} holds {heads[others[0]][0]!r} of {' or '.join(others)}, but config.json names no architecture; "
            f"choose its task with --task ({tasks})"
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def is_compressed(folder: Path | str) -> bool:
    """Tells whether a checkpoint folder holds a compressed model."""
    return _names_method(read_config(Path(folder)))


def _names_method(values: dict[str, Any]) -> bool:
    quantization = values.get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == QUANT_METHOD
