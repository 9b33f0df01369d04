"""A checkpoint folder in, an ONNX folder out.

The folder holds ``model.onnx``, ``model.onnx.data``, ``config.json`` and the tokenizer, with the file,
input and output names that optimum uses, so that ``ORTModelFor...from_pretrained(folder)`` loads it. A model
that reads one text and writes another is three graphs over the one data file instead of ``model.onnx``. The
same checkpoint gives the same bytes, wherever it lies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from edgeq.checkpoint import Checkpoint, load_checkpoint, read_config
from edgeq.errors import EdgeqError, UsageError
from edgeq.export.external_data import ModelWriter
from edgeq.export.trace import DEFAULT_FLAVOUR, DEFAULT_OPSET, check_flavour, check_opset, onnx_models
from edgeq.factor.evaluation import describe_choices
from edgeq.files import Output, check_new_folder, new_folder
from edgeq.formats.sentence_model import copy_sentence_settings
from edgeq.models import GenerativeAdapter, ModelAdapter, Seq2SeqAdapter
from edgeq.models.cache import CACHE_DTYPES
from edgeq.models.generation_config import generation_settings, write_generation_settings
from edgeq.progress import Progress, silent

DEFAULT_CACHE = "float16"
OUTPUT = Output("export")


def export_onnx(
    checkpoint_folder: Path | str,
    out_folder: Path | str,
    *,
    task: str | None = None,
    opset: int = DEFAULT_OPSET,
    cache: str = DEFAULT_CACHE,
    flavour: str = DEFAULT_FLAVOUR,
    force: bool = False,
    progress: Progress | None = None,
    remark: Callable[[str], None] | None = None,
) -> Path:
    """Exports a checkpoint to ONNX.

    Args:
        checkpoint_folder: A compressed checkpoint, or a float one (for a baseline).
        out_folder: Folder to write; an earlier output of this function is replaced when all is done.
        task: What to make of a float checkpoint, by ``transformers``' name; None takes what it was made for.
        opset: Version of the standard operators, 18 to 23. The default, 23, is the first that has attention as one
            operator, as the compiler needs it; 20 is for older runtimes. Below 20 GELU is several nodes as well.
        cache: Type of the key/value cache of a model that generates: ``float16``, ``float32`` or ``int8``.
        flavour: ``edgeq``, our operators with their bodies, or ``stock``, operators of ONNX Runtime itself: it runs
            fast without a library, and rounds activations in blocks, so it agrees in what a task measures.
        force: Replace ``out_folder`` whatever it holds.
        progress: Told how far the work is.
        remark: Told how factorised layers are computed, one line for those of a kind, and what the stock flavour
            stores otherwise.

    Returns:
        The path of ``model.onnx``, or of ``encoder_model.onnx``.

    Raises:
        UsageError: If the checkpoint, the opset, the type of cache or the flavour is not there, ``out_folder`` holds
            something that this function did not write, or a type of cache is given for a model that has none.
        UnsupportedError: If the architecture is not implemented.
        FormatError: If the checkpoint is damaged.
        EdgeqError: If the graph cannot be made, or is not valid ONNX.
    """
    report = progress or silent
    source, out = Path(checkpoint_folder), Path(out_folder)
    check_opset(opset)
    check_flavour(flavour)
    check_cache(cache)
    check_new_folder(out, OUTPUT, force=force, sources=[source])
    report("loading the checkpoint", 0, 3)
    checkpoint = load_checkpoint(source, task=task)
    check_cache(cache, checkpoint.adapter)
    tell = _once(remark)
    for line in (*checkpoint.remarks, *describe_choices(checkpoint.choices)):
        tell(line)
    report("tracing and writing the graph", 1, 3)
    with new_folder(out, OUTPUT, force=force, sources=[source]) as temporary:
        dtype = CACHE_DTYPES[cache]
        written = _write_graphs(checkpoint, temporary, opset, cache_dtype=dtype, flavour=flavour, remark=tell)
        report("checking the graph", 2, 3)
        for path in written:
            _check(path)
        _copy_settings(checkpoint, temporary)
        checkpoint.tokenizer.save_pretrained(temporary)
    report("checking the graph", 3, 3)
    return out / written[0].name


def check_cache(name: str, adapter: ModelAdapter | None = None) -> None:
    """Refuses types of caches that there are none of, and a type that would change nothing.

    Raises:
        UsageError: If ``name`` is not one of :data:`edgeq.models.cache.CACHE_DTYPES`, or is not the default although
            the model keeps no cache.
    """
    if name not in CACHE_DTYPES:
        *others, last = CACHE_DTYPES
        raise UsageError(f"the cache must be {', '.join(others)} or {last}, found {name!r}")
    if adapter is not None and name != DEFAULT_CACHE and not isinstance(adapter, GenerativeAdapter | Seq2SeqAdapter):
        raise UsageError(f"--cache is for models that generate text, and {adapter.architecture} does not; leave it out")


def _write_graphs(
    checkpoint: Checkpoint,
    folder: Path,
    opset: int,
    *,
    cache_dtype: torch.dtype,
    flavour: str,
    remark: Callable[[str], None],
) -> list[Path]:
    with ModelWriter(folder) as writer:
        models = onnx_models(
            checkpoint.model,
            checkpoint.adapter,
            opset=opset,
            cache_dtype=cache_dtype,
            flavour=flavour,
            place=writer.place,
            remark=remark,
        )
        return [writer.write(name, model) for name, model in models]


def _copy_settings(checkpoint: Checkpoint, out: Path) -> None:
    """Copies what a model needs besides graph, weights and tokenizer; later stages go by the class that it names."""
    source, adapter = checkpoint.sentence.transformer, checkpoint.adapter
    named = {"architectures": [adapter.architecture], "model_type": adapter.config.model_type}
    config = read_config(source)
    if named.items() <= config.items():
        shutil.copyfile(source / "config.json", out / "config.json")
    else:
        text = json.dumps(config | named, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (out / "config.json").write_text(text, encoding="utf-8")
    if isinstance(adapter, GenerativeAdapter | Seq2SeqAdapter):
        write_generation_settings(generation_settings(checkpoint.model, source), out)
    copy_sentence_settings(checkpoint.sentence, out)


def _once(remark: Callable[[str], None] | None) -> Callable[[str], None]:
    """Passes every sentence on once, if somebody listens, though several graphs may have cause for it."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if remark is not None and line not in said:
            said.add(line)
            remark(line)

    return tell


def _check(path: Path) -> None:
    """Runs the ONNX checker, with shape inference, on the file as written."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise EdgeqError(f"the exported graph is not valid ONNX ({first}); please report this model") from error
