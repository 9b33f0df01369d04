"""The models of the text workloads on disk: as checkpoint, as the peers read them, and as edgeq's bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.speed import prepare
from benchmarks.speed.benchmarks import HOST
from edgeq.files import write_text

RECIPES = ("ptq-w8a8", "ptq-w7a8")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_MODULES = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))


def checkpoints(model: str, *, minilm: Path, root: Path, longest: int) -> Path:
    """Makes two folders of a model: ``float``, which the peers convert, and ``sentence-transformers``.

    Args:
        model: ``minilm-l6``, whose weights are the real ones, or ``bert-base``, whose weights are random: the time does
            not depend on them.
        minilm: all-MiniLM-L6-v2. Its tokenizer is BERT's, which both models take.
        root: Folder where models are kept.
        longest: Tokens at which texts are cut.

    Returns:
        The model's folder.
    """
    folder = root / model
    if not (folder / "float").is_dir():
        made = folder / "float-unfinished"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        weights = minilm if model == "minilm-l6" else prepare.float_checkpoint(model, root / "random")
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(weights / name, made / name)
        for name in _TOKENIZER_FILES:
            shutil.copyfile(minilm / name, made / name)
        made.rename(folder / "float")
    if not (folder / "sentence-transformers").is_dir():
        made = folder / "sentence-transformers-unfinished"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(folder / "float", made)
        _describe(made, longest)
        made.rename(folder / "sentence-transformers")
    return folder


def bundle(model: str, recipe: str, root: Path) -> Path:
    """Makes edgeq's bundle unless it is there and was made by this very compiler; returns its folder."""
    import edgeq
    from edgeq.targets.builtin.target import load_target

    folder = root / model / recipe
    stamp = folder / "compiler"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == prepare.compiler_digest():
        return folder / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    edgeq.compress_model(root / model / "sentence-transformers", folder / "checkpoint", recipe=recipe)
    edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
    edgeq.compile_bundle(folder / "onnx", folder / "bundle", target=load_target(HOST))
    write_text(stamp, prepare.compiler_digest())
    return folder / "bundle"


def _describe(folder: Path, longest: int) -> None:
    """Writes what sentence-transformers wants to know: mean over the tokens, length 1."""
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    modules = [
        {"idx": int(index), "name": index, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, path, kind in _MODULES
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    for _, path, _ in _MODULES:
        (folder / path).mkdir(exist_ok=True)
    write_text(folder / "modules.json", json.dumps(modules, indent=1))
    write_text(folder / "1_Pooling" / "config.json", json.dumps(pooling))
    write_text(folder / "sentence_bert_config.json", json.dumps({"max_seq_length": longest, "do_lower_case": False}))
