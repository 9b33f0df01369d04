"""Models on disk: random weights, the files that peers start from, and edgeq's bundles.

Everything is made once and kept; a folder that is there is taken as it is, but for bundles, which are compiled again
when the compiler has changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed.benchmarks import MODELS

if TYPE_CHECKING:
    from edgeq.recipes.schema import Recipe

SEED = 0
_TWO_BITS = 2
_EXPORTER = Path(__file__).parent / "engines" / "float_onnx.py"
_COMPILER = Path(__file__).parents[2] / "targets"
_SOURCES = (".py", ".c", ".h", ".toml")
_WORD = "<x>"
_CLASSES = {"bert": "BertModel", "gpt2": "GPT2LMHeadModel", "bart": "BartForConditionalGeneration"}


def float_checkpoint(model: str, root: Path) -> Path:
    """Returns a float checkpoint with random weights, with a tokenizer that is never used."""
    import torch
    import transformers

    folder = root / model / "float"
    if folder.is_dir():
        return folder
    options = dict(MODELS[model])
    config = transformers.AutoConfig.for_model(options.pop("model_type"), **options)
    kind = getattr(transformers, _CLASSES[config.model_type])
    torch.manual_seed(SEED)
    made = folder.with_name("float-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    kind(config).eval().save_pretrained(made)
    _tokenizer(made, config.model_type)
    made.rename(folder)
    return folder


def float_onnx(model: str, root: Path, *, python: Path) -> None:
    """Makes the folder with the peers' float ONNX; a decoder computes the logits of the last token only.

    Args:
        model: Key of the models.
        root: Folder where models are kept.
        python: Interpreter of the peers' environment, which has optimum: it wants an older transformers than edgeq.

    Raises:
        subprocess.CalledProcessError: If it could not be made.
    """
    float_checkpoint(model, root)
    if not (root / model / "peers").is_dir():
        subprocess.run([str(python), str(_EXPORTER), str(root / model)], check=True)


def bundle_folder(model: str, recipe: str, *, target: str, root: Path) -> Path:
    """Returns where the bundle of a model under a recipe lies."""
    return root / model / recipe / f"bundle-{target}"


def bundle(model: str, recipe: str, *, target: str, root: Path) -> None:
    """Makes edgeq's bundle unless it is there and was made by this very compiler."""
    import edgeq
    from edgeq.targets.builtin.target import load_target

    folder = bundle_folder(model, recipe, target=target, root=root)
    stamp = folder.with_suffix(".compiler")
    if folder.is_dir() and stamp.is_file() and stamp.read_text(encoding="utf-8") == compiler_digest():
        return
    shutil.rmtree(folder, ignore_errors=True)
    edgeq.compile_bundle(low_bit_onnx(model, recipe, root=root), folder, target=load_target(target))
    stamp.write_text(compiler_digest(), encoding="utf-8")


def low_bit_onnx(model: str, recipe: str, *, root: Path) -> Path:
    """Returns the folder with the compressed model as ONNX, which :func:`bundle` compiles."""
    import edgeq

    folder = root / model / recipe
    if not (folder / "onnx").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        edgeq.compress_model(float_checkpoint(model, root), folder / "checkpoint", recipe=_quick(recipe))
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx-unfinished")
        (folder / "onnx-unfinished").rename(folder / "onnx")
    return folder / "onnx"


def _quick(name: str) -> Recipe:
    """Returns a recipe that maps the largest weight to the last level: searching for scales makes nothing faster.

    Two bits keep their search, which is quick, and without which most random weights would be zero.
    """
    from edgeq.recipes.load import load_recipe

    recipe = load_recipe(name)
    sections = {"weights": recipe.weights, "embeddings": recipe.embeddings}
    wide = {key: part.model_copy(update={"search": "max"}) for key, part in sections.items() if part.bits > _TWO_BITS}
    return recipe.model_copy(update=wide)


def compiler_digest() -> str:
    """Returns a digest of what decides how fast a bundle is: the sources of compiler, kernels and runtimes."""
    digest = hashlib.sha256()
    for file in sorted(file for file in _COMPILER.rglob("*") if file.suffix in _SOURCES):
        digest.update(str(file.relative_to(_COMPILER)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _tokenizer(folder: Path, model_type: str) -> None:
    """Writes a tokenizer with one word: bundles carry one, and calls are made with ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = ["eos_token", "bos_token"] if model_type == "gpt2" else ["pad_token"]
    names = dict.fromkeys(["unk_token", *special], _WORD)
    tokenizer = Tokenizer(models.WordLevel({_WORD: 0}, unk_token=_WORD))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
