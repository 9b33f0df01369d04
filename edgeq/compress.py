"""The first stage of the main job: a float checkpoint in, a compressed checkpoint out."""

from __future__ import annotations

from pathlib import Path

from edgeq.checkpoint import load_checkpoint, save_checkpoint
from edgeq.errors import UsageError
from edgeq.progress import Progress, silent
from edgeq.quant.plan import CompressionResult
from edgeq.recipes import Recipe, apply_recipe, load_recipe

_WANTED_FILES = ("*.json", "*.safetensors", "*.txt", "1_Pooling/*")  # no pickled weights, no other frameworks


def compress_model(
    source: str | Path, out: str | Path, *, recipe: str | Path | Recipe, progress: Progress | None = None
) -> CompressionResult:
    """Compresses a model and writes the result as a checkpoint folder.

    Args:
        source: A model folder, or the name of a model on the Hugging Face hub.
        out: Folder to write; an existing one is replaced when all is done.
        recipe: A recipe, the name of a built-in one, or a recipe file.
        progress: Told how far the work is.

    Returns:
        One record for each layer.

    Raises:
        UsageError: If the source or the recipe is not there, or the recipe makes no sense.
        UnsupportedError: If the architecture is not implemented.
        FormatError: If the source is damaged or already compressed.
    """
    progress = progress or silent
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    folder = resolve_source(source)
    _check_destination(folder, Path(out))
    progress("loading the model", 0, 1)
    checkpoint = load_checkpoint(folder)
    if checkpoint.manifest is not None:
        raise UsageError(
            f"{folder} is compressed already ({checkpoint.manifest.recipe}); give the float model"
        )
    progress("loading the model", 1, 1)
    result = apply_recipe(checkpoint.model, resolved, checkpoint.adapter, progress=progress)
    progress("writing the checkpoint", 0, 1)
    save_checkpoint(checkpoint.model, checkpoint.tokenizer, out, result=result, sentence_files_from=folder)
    progress("writing the checkpoint", 1, 1)
    return result


def resolve_source(source: str | Path) -> Path:
    """Returns the folder of a model: the folder itself, or the local copy of a model of the hub.

    Raises:
        UsageError: If there is no such folder, or the hub does not give the model.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{path} is a file; give the folder of a model")
    name = str(source)
    if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise UsageError(f"there is no folder {name!r}")
    return _download(name)


def _download(name: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_WANTED_FILES)))
    except Exception as error:  # hub and HTTP clients raise many unrelated classes; all mean "not obtained"
        reason = type(error).__name__
        raise UsageError(
            f"{name!r} is not a folder, and no such model could be had from the Hugging Face hub ({reason}); "
            "check the name and the network, or give a folder"
        ) from None


def _check_destination(source: Path, out: Path) -> None:
    source, out = source.resolve(), out.resolve()
    if out == source or out in source.parents:
        raise UsageError(f"the output {out} would replace the source {source}; give another folder")
