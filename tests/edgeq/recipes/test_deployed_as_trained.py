"""Each recipe on a tiny model: the file decodes to the weights that were trained, and every backend agrees."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model, training_folder
from edgeq.deploy import deploy
from edgeq.quant.modules import PackedModule
from edgeq.quant.trainable import make_trainable, trainable_layers
from edgeq.quant.trainable_layers import TrainableLayer
from edgeq.recipes import TrainingRequest, list_recipes, load_recipe, plan_layers
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.training import start_from

QUANTIZED = [
    recipe.name
    for recipe in list_recipes()
    if (loaded := load_recipe(recipe.name)).trains and loaded.weights.quantizer and loaded.factor is None
]
QUICK = [
    *("quantgpt-w8e8a8", "quantgpt-w4e4a8-lsq", "quantgpt-w2e2a8", "quantgpt-w2e2a8-laq", "quantgpt-w2e2a8-pact"),
    *("xtc-l6-w1a8", "xtc-l12-w2a8", "two-stage-w1a8", "paretoq-w2e2a8", "tbt-w1e1a8"),
]
TEXT = "the quick brown fox jumps over the lazy dog . a cat sat .\n" * 16
PAIRS = "".join('{"source": "the lazy dog sat", "target": "a dog"}\n{"source": "a good cat", "target": "cat"}\n' * 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    contents = {
        "bert.tsv": "sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 8,
        "gpt2.txt": TEXT,
        "bart.jsonl": PAIRS,
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {name.split(".")[0]: folder / name for name in contents}


@pytest.fixture(scope="module")
def models(
    make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], make_bart: Callable[..., Path]
) -> dict[str, Path]:
    return {
        "bert": make_bert("BertForSequenceClassification", seed=21),
        "gpt2": make_gpt2(seed=22, n_positions=64),
        "bart": make_bart(seed=23, max_position_embeddings=64),
    }


def _tiny(name: str, folder: Path) -> Path:
    """The recipe for models of two layers and a few thousand weights."""
    recipe = load_recipe(name)
    layers = "[layers]\nkeep = [1]\n" if recipe.layers else ""
    file = folder / "tiny.toml"
    file.write_text(
        f"extends = '{name}'\nname = 'tiny-{name}'\n{layers}"
        "[training]\nbatch_size = 4\nmax_length = 24\nlearning_rate = 2e-3\n"
    )
    return file


def _family_of(name: str) -> str:
    return "bert" if name.startswith(("xtc", "two-stage")) else "gpt2"


def _check_weights(source: Path, recipe: Path, run: Path, out: Path) -> None:
    """Loads the latent weights into a training student, and compares what it computes with what was stored."""
    wanted = load_recipe(recipe)
    original = load_checkpoint(source)
    keep = kept_layers(wanted.layers, original.adapter)
    student, adapter = reduce_layers(original.model, original.adapter, keep)
    make_trainable(student, plan_layers(wanted, adapter))
    start_from(student, run, quantizers=True)
    stored = dict(load_checkpoint(out).model.named_modules())
    layers = {name: m for name, m in trainable_layers(student).items() if isinstance(m, TrainableLayer)}
    assert layers
    for name, layer in layers.items():
        packed = stored[name]
        assert isinstance(packed, PackedModule)
        assert torch.equal(packed.dequantized(), layer.decoded_weight()), name


@pytest.mark.parametrize("name", QUICK)
def test_the_file_decodes_to_the_trained_weights(
    name: str, models: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    family = _family_of(name)
    recipe = _tiny(name, tmp_path)
    request = TrainingRequest(train_data=data[family], epochs=1)
    compress_model(models[family], tmp_path / "out", recipe=recipe, training=request)
    _check_weights(models[family], recipe, training_folder(tmp_path / "out"), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family"),
    [
        *((name, _family_of(name)) for name in QUANTIZED),
        *((name, "bart") for name in ("quantgpt-w8e8a8", "quantgpt-w4e4a8", "quantgpt-w2e2a8")),
    ],
)
def test_every_backend_computes_what_was_trained(
    name: str, family: str, models: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    recipe = _tiny(name, tmp_path)
    request = TrainingRequest(train_data=data[family], epochs=1)
    measured = {"eval_data": data[family]} if family == "bert" else {}
    result = deploy(
        models[family], tmp_path / "run", recipe=recipe, training=request, rounds=2, sequence=16, **measured
    )
    assert result.passed, result.report.verdicts
    run = next((tmp_path / "run").glob("training-*"))
    _check_weights(models[family], recipe, run, tmp_path / "run" / "checkpoint")
