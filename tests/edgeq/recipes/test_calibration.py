"""Recipes that calibrate, on models of a few thousand weights of every family."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UsageError
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.recipes import default_texts, list_recipes, load_recipe
from edgeq.training.unlabelled import load_unlabelled_texts

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "a", "cat", "sat", "good", "movie"]
FACTORS = {
    "kronecker": '[factor]\nmethod = "kronecker"\n[factor.expand]\nright = [1, 2]\n[factor.contract]\nright = [2, 1]\n',
    "tucker": '[factor]\nmethod = "tucker"\nrank = 16\nbank = 3\n',
    "low-rank": '[factor]\nmethod = "low-rank"\nrank = 8\n',
}


def _lines(count: int, *, seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randint(0, len(WORDS), (4 + line % 5,), generator=generator) for line in range(count)]
    return [" ".join(WORDS[index] for index in pick.tolist()) for pick in picks]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "texts.txt"
    file.write_text("\n".join(_lines(160, seed=0)) + "\n")
    return file


def _recipe(folder: Path, method: str, *, bits: int = 2, extra: str = "", steps: int = 12) -> Path:
    grid = {1: "binary", 2: "balanced", 4: "symmetric", 8: "symmetric"}[bits]
    names = json.loads(method)
    tables = "".join(
        f"[calibrate.{name.replace('-', '_')}]\nsteps = {steps}\n"
        for name in names
        if name in ("distill", "block-reconstruction")
    )
    file = folder / "mine.toml"
    file.write_text(
        f'name = "mine"\nsummary = "a test"\n[weights]\nbits = {bits}\ngrid = "{grid}"\n[embeddings]\nbits = 4\n'
        f"[calibrate]\nmethod = {method}\n{tables}{extra}"
    )
    return file


def _output(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    checkpoint = load_checkpoint(folder)
    options: dict[str, Any] = {"decoder_input_ids": ids} if checkpoint.adapter.task == "seq2seq" else {}
    with torch.no_grad():
        result = checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    made: torch.Tensor = result[checkpoint.adapter.output_names[0]]
    return made


def _distance(first: Path, second: Path, *, vocabulary: int = 40) -> float:
    ids = torch.randint(5, vocabulary, (16, 9), generator=torch.Generator().manual_seed(1))
    own, other = _output(first, ids), _output(second, ids)
    return float((own - other).square().sum() / other.square().sum())


def _nearest(source: Path, folder: Path, recipe: Path) -> Path:
    """The same storage without calibration."""
    text = recipe.read_text().split("[calibrate]")[0]
    plain = folder / "plain.toml"
    plain.write_text(text)
    compress_model(source, folder / "nearest", recipe=plain)
    return folder / "nearest"


@pytest.mark.parametrize(
    "method",
    [
        '["error-feedback"]',
        '["block-reconstruction"]',
        '["distill"]',
        '["error-feedback", "block-reconstruction", "distill"]',
    ],
)
def test_every_method_comes_nearer_to_the_float_model_than_rounding(
    method: str, make_bert: Callable[..., Path], texts: Path, tmp_path: Path
) -> None:
    source = make_bert(seed=3)
    recipe = _recipe(tmp_path, method, steps=40)
    compress_model(source, tmp_path / "out", recipe=recipe, calibration_data=texts)
    assert _distance(tmp_path / "out", source) < 0.9 * _distance(_nearest(source, tmp_path, recipe), source)


@pytest.mark.parametrize("family", ["gpt2", "bart", "classifier"])
@pytest.mark.parametrize("bits", [1, 4])
def test_all_families_end_in_the_stored_format(
    family: str,
    bits: int,
    make_bert: Callable[..., Path],
    make_gpt2: Callable[..., Path],
    make_bart: Callable[..., Path],
    texts: Path,
    tmp_path: Path,
) -> None:
    make = {"gpt2": make_gpt2, "bart": make_bart, "classifier": make_bert}[family]
    source = make("BertForSequenceClassification") if family == "classifier" else make()
    recipe = _recipe(tmp_path, '["smooth", "error-feedback", "block-reconstruction", "distill"]', bits=bits, steps=2)
    result = compress_model(source, tmp_path / "out", recipe=recipe, calibration_data=texts)
    checkpoint = load_checkpoint(tmp_path / "out")
    packed = {n for n, m in checkpoint.model.named_modules() if isinstance(m, LowBitLinear | LowBitEmbedding)}
    assert packed == {record.name for record in result.layers if record.kept_float_reason is None}
    assert torch.isfinite(_output(tmp_path / "out", torch.full((1, 5), 7))).all()
    assert checkpoint.manifest is not None
    stored = {name: layer.table for name, layer in checkpoint.manifest.tied.items()}
    assert stored == {record.name: record.tied_to for record in result.layers if record.tied_to}
    assert bool(stored) == (family != "classifier")


@pytest.mark.parametrize("kind", sorted(FACTORS))
def test_factors_go_through(kind: str, make_bert: Callable[..., Path], texts: Path, tmp_path: Path) -> None:
    source = make_bert(seed=4, intermediate_size=80)
    recipe = _recipe(tmp_path, '["error-feedback"]', extra=FACTORS[kind])
    compress_model(source, tmp_path / "out", recipe=recipe, calibration_data=texts)
    plain = tmp_path / "factored.toml"
    plain.write_text(recipe.read_text().split("[calibrate]")[0] + FACTORS[kind])
    compress_model(source, tmp_path / "rounded", recipe=plain)
    floats = tmp_path / "floats.toml"
    floats.write_text(
        'name = "floats"\nsummary = "a test"\n[weights]\nbits = 0\n[embeddings]\nbits = 0\n' + FACTORS[kind]
    )
    compress_model(source, tmp_path / "floats", recipe=floats)
    assert _distance(tmp_path / "out", tmp_path / "floats") < _distance(tmp_path / "rounded", tmp_path / "floats")


def test_fewer_blocks_are_distilled_from_all_of_them(
    make_bert: Callable[..., Path], texts: Path, tmp_path: Path
) -> None:
    source = make_bert(seed=6, num_hidden_layers=3)
    kept = "[layers]\nkeep = [0, 2]\n"
    with pytest.raises(UsageError, match=r"\[layers\] needs"):
        load_recipe(_recipe(tmp_path, '["error-feedback"]', extra=kept))
    for steps in (1, 60):
        recipe = _recipe(tmp_path, '["error-feedback", "distill"]', bits=8, steps=steps, extra=kept)
        compress_model(source, tmp_path / str(steps), recipe=recipe, calibration_data=texts)
    loaded = load_checkpoint(tmp_path / "60")
    assert loaded.model.config.num_hidden_layers == 2
    assert _distance(tmp_path / "60", source) < _distance(tmp_path / "1", source)


def test_the_same_seed_gives_the_same_file(make_bert: Callable[..., Path], texts: Path, tmp_path: Path) -> None:
    source = make_bert(seed=5)
    recipe = _recipe(tmp_path, '["error-feedback", "distill"]', steps=3)
    files = []
    for name in ("one", "two"):
        compress_model(source, tmp_path / name, recipe=recipe, calibration_data=texts)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["calibrated-w1a8", "calibrated-w2a8", "calibrated-w2e4a8", "calibrated-w4a8"])
def test_built_in_recipes_run_with_all_of_their_settings(
    name: str, make_bert: Callable[..., Path], make_gpt2: Callable[..., Path], texts: Path, tmp_path: Path
) -> None:
    file = tmp_path / "short.toml"
    file.write_text(f"extends = '{name}'\n[calibrate.distill]\nsteps = 2\n")
    for index, source in enumerate((make_bert(), make_gpt2())):
        result = compress_model(source, tmp_path / str(index), recipe=file, calibration_data=texts)
        bits = {record.bits for record in result.layers if record.kind == "linear" and record.tied_to is None}
        assert bits == {int(name.removeprefix("calibrated-w")[0])}


def test_built_in_recipes_that_calibrate_need_no_data() -> None:
    names = [recipe.name for recipe in list_recipes() if recipe.name.startswith("calibrated")]
    assert names == ["calibrated-w1a8", "calibrated-w2a8", "calibrated-w2e4a8", "calibrated-w4a8"]
    assert all(load_recipe(name).calibrates and not load_recipe(name).trains for name in names)
    assert default_texts().is_file()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('method = "gptq"', "calibrate"),
        ("method = []", "name each method once"),
        ('method = ["distill", "distill"]', "name each method once"),
        ('method = ["distill", "smooth"]', "comes before"),
        ('method = "distill"\n[calibrate.error_feedback]\ntokens = 3', "which is not named"),
        ('method = "distill"\n[calibrate.distill]\nsteps = 0', "steps"),
    ],
)
def test_tables_that_make_no_sense_are_refused(table: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "x"\nsummary = "x"\n[weights]\nbits = 4\n[embeddings]\nbits = 4\n[calibrate]\n{table}\n')
    with pytest.raises(UsageError, match=complaint):
        load_recipe(file)


def test_calibration_and_training_exclude_each_other(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("extends = 'xtc-l12-w1a8'\n[calibrate]\nmethod = 'distill'\n")
    with pytest.raises(UsageError, match="without \\[training\\]"):
        load_recipe(file)


def test_data_are_refused_by_recipes_that_do_not_read_them(float_checkpoint: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not calibrate"):
        compress_model(float_checkpoint, tmp_path / "out", recipe="ptq-w4a8", calibration_data=texts)
    missing = tmp_path / "no.txt"
    with pytest.raises(UsageError, match="no such file"):
        compress_model(float_checkpoint, tmp_path / "out", recipe="calibrated-w4a8", calibration_data=missing)
    assert not (tmp_path / "out").exists()


def _load(folder: Path, file: Path) -> Any:
    checkpoint = load_checkpoint(folder)
    return load_unlabelled_texts(file, tokenizer=checkpoint.tokenizer, adapter=checkpoint.adapter, max_length=16)


def test_texts_that_the_tokenizer_does_not_know_are_left_out_or_refused(float_checkpoint: Path, tmp_path: Path) -> None:
    known, unknown = _lines(160, seed=1), ["съешь ещё этих мягких французских булок"] * 40
    file = tmp_path / "mixed.txt"
    file.write_text("\n".join(known + unknown))
    loaded = _load(float_checkpoint, file)
    assert loaded.unknown == 1  # the same line forty times is one text
    file.write_text("\n".join(f"{line} {number}" for number, line in enumerate(unknown)))
    with pytest.raises(UsageError, match="unknown"):
        _load(float_checkpoint, file)


def test_texts_that_were_left_out_are_counted_in_a_remark(float_checkpoint: Path, tmp_path: Path) -> None:
    file, said = tmp_path / "mixed.txt", list[str]()
    unknown = [f"съешь ещё этих мягких булок {number}" for number in range(3)]
    file.write_text("\n".join(_lines(160, seed=1) + unknown))
    recipe = _recipe(tmp_path, '["error-feedback"]')
    compress_model(float_checkpoint, tmp_path / "out", recipe=recipe, calibration_data=file, remark=said.append)
    assert len(said) == 1
    assert " 3 of " in said[0]


def test_too_few_texts_are_refused(float_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "few.txt"
    file.write_text("the cat sat\na good movie\n")
    with pytest.raises(UsageError, match="512 or more"):
        _load(float_checkpoint, file)


def test_columns_of_tables_are_read_without_their_labels(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    lines = _lines(320, seed=2)
    pairs = tmp_path / "pairs.tsv"
    rows = [f"{a}\t{b}\tnonsense" for a, b in zip(lines[::2], lines[1::2], strict=True)]
    pairs.write_text("sentence1\tsentence2\tlabel\n" + "\n".join(rows))
    classifier = make_bert("BertForSequenceClassification")
    loaded = _load(classifier, pairs)
    assert len(loaded) == 160
    assert any(types.any() for types in loaded.examples.types)
    assert sum(batch["input_ids"].numel() for batch in loaded.batches(64, seed=0)) == loaded.tokens
    for batch in loaded.batches(64, seed=0, most=200):
        assert batch["input_ids"].numel() <= 64
        assert "labels" not in batch
        assert bool(batch["attention_mask"].all())
