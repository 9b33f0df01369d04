"""Models on disk: random weights, the files that peers start from, and edgeq's bundles.

Everything is made once and kept; a folder that is there is taken as it is, but for bundles, which are compiled again
when the compiler has changed.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.speed.benchmarks import MODELS

if TYPE_CHECKING:
    from edgeq.recipes.schema import Recipe

SEED = 0
_TWO_BITS = 2
_COMPILER = Path(__file__).parents[2] / "targets"
_SOURCES = (".py", ".c", ".h", ".toml")
_WORD = "<x>"


def float_checkpoint(model: str, root: Path) -> Path:
    """Returns a float checkpoint with random weights, with a tokenizer that is never used."""
    import torch
    import transformers

    folder = root / model / "float"
    if folder.is_dir():
        return folder
    options = dict(MODELS[model])
    config = transformers.AutoConfig.for_model(options.pop("model_type"), **options)
    kind = transformers.GPT2LMHeadModel if config.model_type == "gpt2" else transformers.BertModel
    torch.manual_seed(SEED)
    made = folder.with_name("float-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    kind(config).eval().save_pretrained(made)
    _tokenizer(made, config.model_type)
    made.rename(folder)
    return folder


def float_onnx(model: str, root: Path) -> Path:
    """Returns the folder with the peers' float ONNX; a decoder computes the logits of the last token only."""
    from optimum.exporters.onnx import main_export

    folder = root / model / "peers"
    if (folder / "model.onnx").is_file():
        return folder
    checkpoint = float_checkpoint(model, root)
    decoder = MODELS[model]["model_type"] == "gpt2"
    made = folder.with_name("peers-unfinished")
    shutil.rmtree(made, ignore_errors=True)
    task = "text-generation-with-past" if decoder else "feature-extraction"
    main_export(str(checkpoint), output=made, task=task, do_validation=False, no_post_process=True)
    if decoder:
        _last_logits_only(made / "model.onnx")
    made.rename(folder)
    return folder


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


def _last_logits_only(file: Path) -> None:
    """Lets the output head read the last token: what a generator computes."""
    model = onnx.load(file)
    head = next(node for node in model.graph.node if "logits" in node.output)
    for name, value in (("last_start", [-1]), ("last_end", [2**31 - 1]), ("last_axis", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    cut = helper.make_node("Slice", [head.input[0], "last_start", "last_end", "last_axis"], ["last_state"], name="last")
    model.graph.node.insert(list(model.graph.node).index(head), cut)
    head.input[0] = "last_state"
    del model.graph.value_info[:]
    onnx.save(model, file)
