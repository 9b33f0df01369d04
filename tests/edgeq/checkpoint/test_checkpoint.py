import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import edgeq.hf
from edgeq.checkpoint import is_compressed, load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.models import adapter_for
from edgeq.reading import sha256
from edgeq.recipes import apply_recipe, list_recipes, load_recipe

RECIPES = ["ptq-w8a8", "ptq-w7a8", "ptq-w4a8", "ptq-w2a8", "ptq-w2e2a8", "ptq-w4"]


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Returns a function that copies a checkpoint to a place where it may be damaged."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    return copy


def _batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 80, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _outputs(model: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model.eval()(**_batch()).to_tuple())


def _edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_every_builtin_recipe_is_tested_here() -> None:
    assert sorted(RECIPES) == [recipe.name for recipe in list_recipes() if recipe.name.startswith("ptq-")]


@pytest.mark.parametrize("architecture", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip_is_exact_to_the_last_bit(
    recipe: str, architecture: str, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bert(architecture, num_labels=3)
    result = compress_model(source, tmp_path / "out", recipe=recipe)
    in_memory = getattr(transformers, architecture).from_pretrained(source)
    apply_recipe(in_memory, load_recipe(recipe), adapter_for(in_memory))
    auto = "AutoModel" if architecture == "BertModel" else "AutoModelForSequenceClassification"
    loaded = getattr(transformers, auto).from_pretrained(tmp_path / "out")
    checked = load_checkpoint(tmp_path / "out")
    for expected, *others in zip(_outputs(in_memory), _outputs(loaded), _outputs(checked.model), strict=True):
        assert all(torch.equal(expected, other) for other in others)
    assert checked.manifest is not None
    assert checked.manifest.recipe == result.recipe == recipe
    assert checked.manifest.recipe_sha256 == load_recipe(recipe).sha256
    assert checked.manifest.kept_float == result.kept_float
    assert set(checked.manifest.tensors) == {layer.name for layer in result.layers if layer.bits < 32}


def test_from_pretrained_works_in_a_fresh_process(compressed_checkpoint: Path) -> None:
    code = (
        "import sys, torch, edgeq.hf, transformers\n"
        "m = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()\n"
        "t = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "states = m(**t('the cat sat', return_tensors='pt'))[0]\n"
        "print(type(m.encoder.layer[0].output.dense).__name__, states.shape[1])"
    )
    command = [sys.executable, "-c", code, str(compressed_checkpoint)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["LowBitLinear", "5"]


def test_the_folder_holds_packed_tensors_and_their_digest(compressed_checkpoint: Path) -> None:
    values = json.loads((compressed_checkpoint / "config.json").read_text())["quantization_config"]
    assert values["quant_method"] == "edgeq"
    assert values["format_version"] == 1
    assert values["files"] == {"model.safetensors": sha256(compressed_checkpoint / "model.safetensors")}
    assert values["tensors"]["encoder.layer.0.intermediate.dense"] == {
        "kind": "linear", "rows": 76, "columns": 40, "bits": 4, "zero_point": 8.0, "scales": 76,
        "activation": "dynamic", "bias": True,
    }  # fmt: skip
    with safe_open(compressed_checkpoint / "model.safetensors", "np") as file:
        names = set(file.keys())
        assert file.get_tensor("encoder.layer.0.intermediate.dense.weight_packed").shape == (5, 5, 16, 4)
    assert "encoder.layer.0.intermediate.dense.weight" not in names
    assert not [path for path in compressed_checkpoint.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_the_file_is_as_large_as_the_records_say(float_checkpoint: Path, tmp_path: Path) -> None:
    result = compress_model(float_checkpoint, tmp_path / "out", recipe="ptq-w8a8")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    layers = {layer.name for layer in result.layers}
    of_layers = [
        array.nbytes
        for name, array in tensors.items()
        if name.rpartition(".")[0] in layers and not name.endswith(".bias")
    ]
    assert sum(of_layers) == sum(layer.stored_bytes for layer in result.layers)


def test_compressing_twice_gives_identical_files(float_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        compress_model(float_checkpoint, tmp_path / name, recipe="ptq-w4a8")
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert names
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_a_loaded_model_can_be_saved_again(compressed_checkpoint: Path, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(compressed_checkpoint)
    model.save_pretrained(tmp_path / "again")
    again = transformers.AutoModel.from_pretrained(tmp_path / "again")
    assert torch.equal(_outputs(again)[0], _outputs(model)[0])


def test_the_encoder_of_a_classifier_loads_alone(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert("BertForSequenceClassification")
    recipe = tmp_path / "r.toml"
    text = (Path(edgeq.__path__[0]) / "recipes" / "builtin" / "ptq-w8a8.toml").read_text()
    head = "\n[[override]]\npattern = 'classifier'\nkeep_float = true\nreason = 'tested'\n"
    recipe.write_text(text + head)
    compress_model(source, tmp_path / "out", recipe=recipe)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(_outputs(encoder)[0], _outputs(classifier.bert)[0])


def test_sentence_files_and_a_clean_tokenizer_are_kept(
    float_checkpoint: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = copy_of(float_checkpoint)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (source / "modules.json").write_text(json.dumps(modules))
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    tokenizer.backend_tokenizer.enable_truncation(30)
    tokenizer.backend_tokenizer.save(str(source / "tokenizer.json"))
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    assert json.loads((tmp_path / "out" / "modules.json").read_text()) == modules
    assert "mean_tokens" in (tmp_path / "out" / "1_Pooling" / "config.json").read_text()
    saved = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert (saved["padding"], saved["truncation"]) == (None, None)


def test_half_precision_sources_become_float32(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert(seed=4)
    tensors = load_file(source / "model.safetensors")
    save_file(
        {name: a.astype(np.float16) for name, a in tensors.items()},
        source / "model.safetensors",
        {"format": "pt"},
    )
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    model = load_checkpoint(tmp_path / "out").model
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_is_compressed(float_checkpoint: Path, compressed_checkpoint: Path) -> None:
    assert is_compressed(compressed_checkpoint)
    assert not is_compressed(float_checkpoint)


# Wrong input


def test_any_flipped_bit_of_the_weights_is_noticed(
    compressed_checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(compressed_checkpoint)
    content = (folder / "model.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for position in [3, 9, 300, len(content) - 1, *rng.integers(0, len(content), 12).tolist()]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            load_checkpoint(folder)
    with pytest.raises(FormatError, match="SHA-256"):
        transformers.AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("which", ["float", "compressed"])
def test_truncated_weights(
    which: str, float_checkpoint: Path, compressed_checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(float_checkpoint if which == "float" else compressed_checkpoint)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            load_checkpoint(folder)


DENSE = "encoder.layer.0.output.dense"


def _tensor(values: dict[str, Any], **changes: object) -> None:
    values["quantization_config"]["tensors"][DENSE].update(changes)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda v: _tensor(v, bits=3), "found 3"),
        (lambda v: _tensor(v, bits="4"), "wrong type"),
        (lambda v: _tensor(v, bits=2, zero_point=1.0), "should be U8"),
        (lambda v: _tensor(v, rows=10**12, scales=1), "wrong type"),
        (lambda v: _tensor(v, rows=10**9, scales=1), "should be U8"),
        (lambda v: _tensor(v, columns=80), "packed linear|found"),
        (lambda v: _tensor(v, scales=1), "should be F32"),
        (lambda v: _tensor(v, kind="embedding"), "packed embedding"),
        (lambda v: _tensor(v, activation="none"), None),
        (lambda v: _tensor(v, activation="static"), "activation_scale"),
        (lambda v: _tensor(v, activation=["none"]), "wrong type"),
        (lambda v: _tensor(v, zero_point=None), "wrong type"),
        (lambda v: v["quantization_config"]["tensors"].update({"nowhere": 3}), "'nowhere'"),
        (lambda v: v["quantization_config"]["tensors"].pop(DENSE), "lacks tensor"),
        (lambda v: v["quantization_config"].update(format_version=2), "found 2"),
        (lambda v: v["quantization_config"].update(quant_method="other"), "quant_method"),
        (lambda v: v["quantization_config"].update(tensors=[]), "lacks"),
        (lambda v: v["quantization_config"].update(files={"model.safetensors": 1}), "map names to texts"),
        (lambda v: v.update(quantization_config=7), "quant_method"),
        (lambda v: v.update(vocab_size=2**31), "parameters"),
        (lambda v: v.update(hidden_size=44), "40|44"),
        (lambda v: v.update(num_hidden_layers=3), "lacks tensor"),
        (lambda v: v.update(num_attention_heads=7), "40 and 7"),
    ],
)
def test_a_config_that_contradicts_the_weights(
    change: Callable[[dict[str, Any]], object],
    found: str | None,
    compressed_checkpoint: Path,
    copy_of: Callable[[Path], Path],
) -> None:
    folder = _edit_config(copy_of(compressed_checkpoint), change)
    if found is None:  # a legal change of meaning, which no check can tell from intent
        load_checkpoint(folder)
        return
    with pytest.raises(FormatError, match=found) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_infinite_scales_are_refused(compressed_checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(compressed_checkpoint)
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{DENSE}.scale"][3] = np.inf
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    _edit_config(folder, lambda values: values["quantization_config"].update(files={}))
    with pytest.raises(FormatError, match=DENSE):
        load_checkpoint(folder)


def test_pipelines_and_dtype_auto_take_a_compressed_classifier(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bert("BertForSequenceClassification", num_labels=3)
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    for options in ({"dtype": "auto"}, {"dtype": "float32"}, {}):
        auto = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", **options)
        assert {parameter.dtype for parameter in auto.parameters()} == {torch.float32}
    found = transformers.pipeline("text-classification", model=str(tmp_path / "out"))("the cat sat")[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        wanted = auto.eval()(**tokenizer("the cat sat", return_tensors="pt")).logits.softmax(-1)[0]
    assert found["label"] == auto.config.id2label[int(wanted.argmax())]
    assert abs(found["score"] - float(wanted.max())) < 1e-6


def test_a_request_for_another_dtype_is_refused(compressed_checkpoint: Path) -> None:
    with pytest.raises(UnsupportedError, match="float16"):
        transformers.AutoModel.from_pretrained(compressed_checkpoint, dtype=torch.float16)


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"{", "not valid JSON"), (b"\xff\xfe", "not UTF-8"), (b"[]", "a list"), (b"[" * 100_000, "nested too deeply")],
)
def test_a_damaged_config(
    content: bytes, found: str, float_checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(float_checkpoint)
    (folder / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match=found):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"intermediate_size": 70}, r"should have shape \[70"),
        ({"vocab_size": 70}, r"should have shape \[70, 40\] by"),
        ({"attention_probs_dropout_prob": 7}, "no possible model"),
        ({"dtype": "float7"}, "float7"),
    ],
)
def test_a_float_model_that_its_config_does_not_fit(
    values: dict[str, Any], found: str, float_checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = _edit_config(copy_of(float_checkpoint), lambda config: config.update(values))
    with pytest.raises(FormatError, match=found) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_tokenizer(float_checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(float_checkpoint)
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 3}')
    with pytest.raises(FormatError, match="tokenizer"):
        load_checkpoint(folder)


def test_missing_files(float_checkpoint: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        load_checkpoint(tmp_path / "nowhere")
    folder = copy_of(float_checkpoint)
    (folder / "model.safetensors").rename(folder / "kept")
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        load_checkpoint(folder)
    (folder / "kept").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match="pickle"):
        load_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FormatError, match="weight_map"):
        load_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json"):
        load_checkpoint(folder)


def test_a_weight_that_is_missing(float_checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(float_checkpoint)
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"{DENSE}.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FormatError, match=f"lacks tensor '{DENSE}.weight'"):
        load_checkpoint(folder)


def test_a_tokenizer_that_is_there_is_not_read_again(make_bert):
    source = make_bert()
    tokenizer = load_checkpoint(source).tokenizer
    assert load_checkpoint(source, tokenizer=tokenizer).tokenizer is tokenizer
