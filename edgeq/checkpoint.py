"""Checkpoint folders: loading float and compressed ones with all checks, and saving compressed ones."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.factor.cost import Evaluate
from edgeq.factor.evaluation import Choice, apply_choices, call_tokens, choose
from edgeq.factor.insert import factor_specs, insert_factor_modules
from edgeq.factor.manifest import FactorManifest
from edgeq.files import Output, new_folder
from edgeq.formats.json_file import read_json_object
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.tensor_header import TensorEntry, read_tensor_header
from edgeq.hf import EdgeqConfig, check_scales, verify_files
from edgeq.models import ModelAdapter, adapter_for
from edgeq.quant.manifest import QUANT_METHOD, PackedTensor, QuantizationManifest
from edgeq.quant.plan import CompressionResult
from edgeq.reading import sha256

OUTPUT = Output("compress")
WEIGHTS_NAME = "model.safetensors"
_CLASSES = {
    "embed": transformers.AutoModel,
    "classify": transformers.AutoModelForSequenceClassification,
    "generate": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
}
# What sentence-transformers keeps beside a model: pooling, normalisation, longest input, prompts.
_SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_POOLING_FILE = Path("1_Pooling") / "config.json"


@dataclasses.dataclass
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        folder: Where it came from.
        model: The model in evaluation mode, float32.
        tokenizer: Its tokenizer.
        adapter: The adapter of its architecture.
        manifest: Description of its packed tensors, or None for a float checkpoint.
        choices: How its factorised layers are computed.
    """

    folder: Path
    model: Any
    tokenizer: Any
    adapter: ModelAdapter
    manifest: QuantizationManifest | None
    choices: tuple[Choice, ...] = ()


def load_checkpoint(folder: Path | str) -> Checkpoint:
    """Loads a checkpoint folder, float or compressed, and checks it before taking memory.

    Factorised layers are set to compute the way that costs least, or that the recipe asked for.

    Raises:
        UsageError: If the folder or one of its files is missing.
        UnsupportedError: If the architecture is unknown, or the weights are in another format.
        FormatError: If a file is damaged or contradicts another one.
    """
    folder = Path(folder)
    values = read_config(folder)
    config = _parse_config(folder, values)
    adapter = adapter_for(config)
    weights = _weights_file(folder)
    header = read_tensor_header(weights)
    manifest = None
    if (quantization := values.get("quantization_config")) is not None:
        manifest = QuantizationManifest.from_json(quantization)
        _check_packed_tensors(weights, header, manifest)
        verify_files(folder, manifest)
    factors = FactorManifest.from_json(manifest.factors if manifest else {})
    _check_claimed_size(folder, adapter, weights, tied=manifest.tied if manifest else (), factors=factors)
    model = _load_model(folder, adapter)
    check_scales(model)
    choices = choose(model, evaluate=factors.evaluate, tokens=call_tokens(adapter))
    apply_choices(model, choices)
    return Checkpoint(folder, model, load_tokenizer(folder), adapter, manifest, tuple(choices))


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a checkpoint folder.

    Raises:
        UsageError: If the folder or the file is missing.
        FormatError: If the file is not a JSON object.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"{folder} is not a model folder: it holds no config.json")
    return read_json_object(path)


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a checkpoint folder.

    Raises:
        FormatError: If there is none, or it is damaged.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise FormatError(f"the tokenizer in {folder} cannot be loaded: {_one_line(error)}") from error
    # Some publishers leave "pad everything to 128" in tokenizer.json; edgeq pads and cuts by itself.
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    folder: Path | str,
    *,
    result: CompressionResult,
    sentence_files_from: Path | None = None,
    evaluate: Evaluate = "auto",
    force: bool = False,
) -> None:
    """Writes a compressed model as a folder that ``from_pretrained`` loads after ``import edgeq.hf``.

    Args:
        model: The compressed ``transformers`` model.
        tokenizer: Its tokenizer.
        folder: Where to write; an earlier output of ``edgeq compress`` is replaced when all is written.
        result: What :func:`edgeq.recipes.apply_recipe` returned.
        sentence_files_from: Folder whose sentence-transformers files (pooling) are kept.
        evaluate: How factorised layers are to be computed.
        force: Replace whatever is there.

    Raises:
        UsageError: If ``folder`` holds something else than such an output.
    """
    factors = FactorManifest(factor_specs(model), evaluate)
    manifest = dataclasses.replace(QuantizationManifest.of_model(model, result), factors=factors.to_json())
    with new_folder(Path(folder), OUTPUT, force=force) as temporary:
        model.config.quantization_config = EdgeqConfig.from_dict(manifest.to_json())
        try:
            model.save_pretrained(temporary, max_shard_size="100GB")
        finally:
            del model.config.quantization_config
        (temporary / WEIGHTS_NAME).chmod(0o644)  # safetensors creates it for its owner only
        manifest.files[WEIGHTS_NAME] = sha256(temporary / WEIGHTS_NAME)
        values = read_config(temporary)
        values["quantization_config"] = manifest.to_json()
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        tokenizer.save_pretrained(temporary)
        if sentence_files_from is not None:
            copy_sentence_files(sentence_files_from, temporary)


def save_float_checkpoint(
    model: Any,
    tokenizer: Any,
    folder: Path | str,
    *,
    sentence_files_from: Path | None = None,
    force: bool = False,
) -> None:
    """Writes a float model as a plain checkpoint; the arguments are those of :func:`save_checkpoint`."""
    with new_folder(Path(folder), OUTPUT, force=force) as temporary:
        model.save_pretrained(temporary, max_shard_size="100GB")
        (temporary / WEIGHTS_NAME).chmod(0o644)  # safetensors creates it for its owner only
        tokenizer.save_pretrained(temporary)
        if sentence_files_from is not None:
            copy_sentence_files(sentence_files_from, temporary)


def copy_sentence_files(source: Path, folder: Path) -> None:
    """Copies the sentence-transformers files that ``source`` has: pooling, normalisation, longest input."""
    for name in _SENTENCE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / _POOLING_FILE).is_file():
        (folder / _POOLING_FILE).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / _POOLING_FILE, folder / _POOLING_FILE)


def _parse_config(folder: Path, values: dict[str, Any]) -> Any:
    plain = {key: value for key, value in values.items() if key != "quantization_config"}
    model_type = plain.get("model_type")
    if model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        raise UnsupportedError(f"{folder / 'config.json'}: model type {model_type!r} is unknown")
    try:
        return transformers.AutoConfig.for_model(**plain)
    except Exception as error:  # config classes check values with whatever exception is at hand
        raise FormatError(f"{folder / 'config.json'} is damaged: {_one_line(error)}") from error


def _weights_file(folder: Path) -> Path:
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return path
    if any(folder.glob("*.bin")):
        raise UnsupportedError(
            f"{folder} holds weights as pickle (.bin), which edgeq does not open; "
            "save the model again with save_pretrained(..., safe_serialization=True)"
        )
    if (folder / f"{WEIGHTS_NAME}.index.json").is_file():
        raise UnsupportedError(
            f"{folder} holds weights in several files; save the model again with a larger max_shard_size"
        )
    raise UsageError(f"{folder} holds no {WEIGHTS_NAME}")


def _check_packed_tensors(path: Path, header: dict[str, TensorEntry], manifest: QuantizationManifest) -> None:
    """Compares what config.json says about packed tensors with what the weight file holds."""
    for module, tensor in manifest.tensors.items():
        for name, (dtype, shape) in _expected_tensors(module, tensor).items():
            entry = header.get(name)
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


def _check_claimed_size(
    folder: Path, adapter: ModelAdapter, weights: Path, *, tied: Iterable[str], factors: FactorManifest
) -> None:
    """Refuses a config.json whose model could not fit in the weight file, before memory is taken for it."""
    try:
        with torch.device("meta"):
            model = getattr(transformers, adapter.architecture)(adapter.config)
    except Exception as error:  # layers check the values they are given with whatever exception is at hand
        raise FormatError(
            f"{folder / 'config.json'} describes no possible model: {_one_line(error)}"
        ) from error
    insert_factor_modules(model, factors.for_model(model))
    modules = dict(model.named_modules())
    for name in tied:
        if name in modules:
            model.set_submodule(name, nn.Identity())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    bytes_ = weights.stat().st_size
    if parameters > 8 * bytes_:  # one bit a weight is the least that any format takes
        raise FormatError(
            f"{folder / 'config.json'} describes {parameters} parameters, which cannot be in "
            f"{WEIGHTS_NAME} of {bytes_} bytes: one of the two is damaged"
        )


def _load_model(folder: Path, adapter: ModelAdapter) -> nn.Module:
    options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    with _quiet_transformers():
        try:
            model, info = _CLASSES[adapter.task].from_pretrained(folder, output_loading_info=True, **options)
        except EdgeqError:
            raise
        except Exception as error:  # transformers reports files that disagree by whatever then fails
            raise FormatError(f"the model in {folder} cannot be loaded: {_one_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise FormatError(f"{folder / WEIGHTS_NAME} lacks tensor {missing[0]!r} of {adapter.architecture}")
    module: nn.Module = model.eval()
    return module


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silences warnings of loading: missing and unexpected tensors are judged by the caller."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def is_compressed(folder: Path | str) -> bool:
    """Tells whether a checkpoint folder holds a compressed model."""
    quantization = read_config(Path(folder)).get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == QUANT_METHOD
