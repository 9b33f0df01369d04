"""Loads checkpoint folders, float and compressed, with all checks before memory is taken."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from edgeq.checkpoint.config import contradicts_its_labels, names_method, one_line, parse_config, read_config
from edgeq.checkpoint.tokenizer import load_tokenizer, lost_tokens
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.factor.evaluation import Choice, apply_choices, call_tokens, choose
from edgeq.factor.insert import insert_factor_modules
from edgeq.factor.manifest import FactorManifest
from edgeq.finite import check_finite
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.quantization_config import PackedTensor, QuantizationManifest
from edgeq.formats.sentence_model import SentenceModel, read_sentence_model
from edgeq.formats.tensor_header import TensorEntry, read_tensor_header
from edgeq.hf import check_scales, verify_packed_files
from edgeq.memory import give_back
from edgeq.models import ModelAdapter, adapter_for, is_of_pretraining, tasks_of
from edgeq.models.generation_config import settings_of_config
from edgeq.models.sentence import SentenceHead
from edgeq.models.transformers_release import other_names, renamed_for_release
from edgeq.quiet import quiet_transformers
from edgeq.tensor_names import fit_names, heads_in
from edgeq.weight_files import WEIGHTS_NAME, WeightFiles, find_weights

_GENERATION_FILE = "generation_config.json"


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


def load_checkpoint(
    folder: Path | str, *, task: str | None = None, tokenizer: Any = None, is_finite: bool = False
) -> Checkpoint:
    """Loads a checkpoint folder, float or compressed, and checks it before taking memory.

    Factorised layers are set to compute the way that costs least, or that the recipe asked for.

    Args:
        folder: The folder: weights as safetensors, in one file or several, or as ``pytorch_model.bin``.
        task: What to make of a float checkpoint, by ``transformers``' name; None takes what it was made for.
        tokenizer: One that is in memory already, where the folder's is not wanted: a large one takes some 300 MB.
        is_finite: Whether this process has loaded the folder before, and so knows that it holds neither NaN nor
            infinity: what no call needs, such as most rows of a large table, is not read into memory again.

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
    config = parse_config(folder, values, weights)
    adapter = adapter_for(config, task, exact=manifest is not None)
    remarks = [weights.remark] if weights.remark is not None else []
    if not values.get("model_type"):
        remarks.append(f"config.json names no model_type: taken as {config.model_type!r}, by what else is there")
    if manifest is None:
        named = config.architectures[0] if config.architectures else None
        try:
            model = _load_float(folder, adapter, weights, chosen=task is not None or named is not None)
        except FormatError as error:
            if adapter.labels and contradicts_its_labels(values):
                raise _contradiction(folder, values, error) from error
            raise
        if task is None and named not in (None, adapter.architecture):
            remarks.append(f"config.json names {named}: taken as {adapter.architecture} (--task chooses otherwise)")
    else:
        model = _checked_compressed(folder, adapter, manifest, weights)
    factors = FactorManifest.from_json(manifest.factors if manifest else {})
    check_scales(model)
    if not is_finite:
        check_finite([*model.named_parameters(), *model.named_buffers()], where=str(folder))
    choices = choose(model, evaluate=factors.evaluate, tokens=call_tokens(adapter))
    apply_choices(model, choices)
    if adapter.task == "embed" and not sentence.is_cross_encoder:
        adapter.sentence = SentenceHead(sentence, width=int(config.hidden_size))
    if tokenizer is None:
        tokenizer = load_tokenizer(folder, lower_case=sentence.lower_case, config=config)
    if lost := lost_tokens(tokenizer):
        remarks.append(lost)
    give_back()
    return Checkpoint(
        sentence.folder, model, tokenizer, adapter, manifest, sentence, tuple(choices), remarks=tuple(remarks)
    )


def _contradiction(folder: Path, values: dict[str, Any], error: FormatError) -> FormatError:
    """Old releases of transformers wrote the names of two labels into every config.json."""
    count, names = values["num_labels"], len(values["id2label"])
    return FormatError(
        f"{folder / 'config.json'} says num_labels = {count} and names {names} labels in id2label, and transformers "
        f"goes by the names; name {count} labels, or take id2label and label2id out ({error})"
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
    return adapter_for(parse_config(folder, values, find_weights(folder)), task, exact=names_method(values))


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
            f"{folder / 'config.json'} describes no possible model: {one_line(error)}"
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
            raise FormatError(f"the model in {folder} cannot be loaded: {one_line(error)}") from error
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
            raise FormatError(f"the model in {folder} cannot be loaded: {one_line(error)}") from error
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
        raise FormatError(f"{path} holds settings that transformers refuses: {one_line(error)}") from error


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
