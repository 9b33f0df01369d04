"""Recipes that train, on models of a few thousand weights: what comes out is what was trained."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model, training_folder
from edgeq.errors import UsageError
from edgeq.quant.modules import PackedModule
from edgeq.recipes import TrainingRequest, load_recipe, train_student
from edgeq.recipes.student import Source
from edgeq.training.tensors import load_tensors

SENTENCES = [
    *("good movie\t1", "a good fox\t1", "the good dog\t1", "good cat sat\t1"),
    *("lazy movie\t0", "a lazy fox\t0", "the lazy dog\t0", "lazy cat sat\t0"),
]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "train.tsv"
    file.write_text("sentence\tlabel\n" + "\n".join(SENTENCES) + "\n")
    return file


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "train.txt"
    file.write_text("the quick brown fox jumps over the lazy dog . a cat sat .\n" * 12)
    return file


@pytest.fixture(scope="module")
def classifier(make_bert: Callable[..., Path]) -> Path:
    return make_bert("BertForSequenceClassification", seed=9)


def _recipe(folder: Path, base: str, changes: str = "") -> Path:
    """A built-in recipe with batches and lengths for tiny models."""
    file = folder / "tiny.toml"
    file.write_text(
        f"extends = '{base}'\nname = 'tiny-{base}'\n"
        f"[training]\nbatch_size = 4\nmax_length = 16\nlearning_rate = 1e-3\n{changes}"
    )
    return file


def test_the_file_holds_the_weights_that_were_trained(classifier: Path, sentences: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = TrainingRequest(train_data=sentences, eval_data=sentences, epochs=2)
    recipe = _recipe(tmp_path, "xtc-l3-w1a8", "[layers]\nkeep = [1]\n")
    compress_model(classifier, out, recipe=recipe, training=request)
    compressed = load_checkpoint(out)
    assert compressed.adapter.stacks[0].depth == 1
    latent = load_tensors(training_folder(out) / "stage-train" / "weights.safetensors")
    packed = {name: m for name, m in compressed.model.named_modules() if isinstance(m, PackedModule)}
    assert len(packed) == 7  # six linear layers and the word table
    for name, module in packed.items():
        weight = latent[f"{name}.weight"]
        mean = weight.double().abs().mean(dim=1 if name.endswith("embeddings") else (0, 1), keepdim=True)
        expected = torch.where(weight >= 0, 0.5, -0.5) * (2 * mean.float())
        assert torch.equal(module.dequantized(), expected), name
    kept = compressed.model.get_submodule("classifier")
    assert torch.equal(kept.weight, latent["classifier.weight"])


def test_xtc_quantizes_a_student_that_was_distilled_first(classifier: Path, sentences: Path, tmp_path: Path) -> None:
    request = TrainingRequest(train_data=sentences, epochs=2)
    first = _recipe(tmp_path, "xtc-l3", "[layers]\nkeep = [1]\n")
    compress_model(classifier, tmp_path / "float", recipe=first, training=request)
    assert load_checkpoint(tmp_path / "float").adapter.stacks[0].depth == 1
    start = training_folder(tmp_path / "float")
    distilled = load_tensors(start / "stage-train" / "weights.safetensors")
    # A rate at which nothing moves: what the second run ends with is what it began with.
    slow = "[training]\nlearning_rate = 1e-12\nbatch_size = 4\nmax_length = 16\n"
    (tmp_path / "slow.toml").write_text(f"extends = 'xtc-l3-w1a8'\nname = 'slow'\n{slow}[layers]\nkeep = [1]\n")
    second = tmp_path / "slow.toml"
    request = TrainingRequest(train_data=sentences, epochs=1, start_from=start)
    compress_model(classifier, tmp_path / "low", recipe=second, training=request)
    latent = load_tensors(training_folder(tmp_path / "low") / "stage-train" / "weights.safetensors")
    name = next(name for name in distilled if name.endswith("layer.0.attention.self.query.weight"))
    assert torch.allclose(latent[name], distilled[name], atol=1e-6)
    taken = load_checkpoint(classifier).model.state_dict()[name.replace("layer.0", "layer.1")]
    assert not torch.allclose(latent[name], taken, atol=1e-6)


def test_training_changed_the_student_and_not_the_source(classifier: Path, sentences: Path, tmp_path: Path) -> None:
    source = load_checkpoint(classifier)
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    recipe = load_recipe(_recipe(tmp_path, "two-stage-w2a8"))
    request = TrainingRequest(train_data=sentences, epochs=3)
    student = train_student(
        Source(source.model, source.adapter, source.tokenizer),
        recipe=recipe,
        request=request,
        folder=tmp_path / "run",
    )
    assert all(torch.equal(before[name], value) for name, value in source.model.state_dict().items())
    assert [stage.name for stage in student.outcome.result.stages] == ["w8", "w4", "w2", "w2a8"]
    bits = {record.bits for record in student.result.layers}
    assert bits == {2, 8}  # 8: the classifier
    assert all(record.activation == "dynamic" for record in student.result.layers if record.kind == "linear")


def test_a_decoder_with_a_tied_head(make_gpt2: Callable[..., Path], text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = TrainingRequest(train_data=text, eval_data=text, epochs=2, seed=4)
    recipe = _recipe(tmp_path, "quantgpt-w2e2a8", "quantizer_learning_rate = 1e-3\n")
    result = compress_model(make_gpt2(seed=2), out, recipe=recipe, training=request)
    compressed = load_checkpoint(out)
    gammas = load_tensors(training_folder(out) / "stage-train" / "weights.safetensors")
    name = "transformer.h.0.mlp.c_fc"
    weight, gamma = gammas[f"{name}.weight"], gammas[f"{name}.quantizer.gamma"]
    module = compressed.model.get_submodule(name)
    assert torch.equal(module.scale, gamma * weight.double().abs().mean().float())
    assert module.scale.shape == (1,)
    assert compressed.model.get_submodule("transformer.wte").scale.shape == (283,)
    assert {record.name for record in result.layers if record.bits == 32} == {"transformer.wpe"}


def test_an_interrupted_run_goes_on_to_the_same_bytes(classifier: Path, sentences: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "xtc-l12-w2a8", "evaluate_every = 1\n")
    request = TrainingRequest(train_data=sentences, eval_data=sentences, epochs=2)
    compress_model(classifier, tmp_path / "whole", recipe=recipe, training=request)

    def interrupt(what: str, done: int, _total: int) -> None:
        if what.startswith("training") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(classifier, tmp_path / "cut", recipe=recipe, training=request, progress=interrupt)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(UsageError, match="holds a training;"):
        compress_model(classifier, tmp_path / "cut", recipe=recipe, training=request)
    again = TrainingRequest(train_data=sentences, eval_data=sentences, epochs=2, resume=True)
    compress_model(classifier, tmp_path / "cut", recipe=recipe, training=again)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_augmented_sentences_are_read_in_their_stage(classifier: Path, sentences: Path, tmp_path: Path) -> None:
    changes = (
        "[augment]\ncopies = 3\ncandidates = 2\nreplace = 0.9\n"
        "[[stage]]\nname = 'plain'\nactivations = false\nbits = 2\nshare = 0.5\n"
        "[[stage]]\nname = 'more'\nshare = 0.5\naugment = true\n"
    )
    request = TrainingRequest(train_data=sentences, epochs=2)
    recipe = _recipe(tmp_path, "two-stage-w1a8", changes)
    compress_model(classifier, tmp_path / "out", recipe=recipe, training=request)
    log = (training_folder(tmp_path / "out") / "log.jsonl").read_text().splitlines()
    steps = {stage: sum(f'"stage": "{stage}"' in line for line in log) for stage in ("plain", "more")}
    assert steps["plain"] >= 1
    assert steps["more"] >= 1
    run = training_folder(tmp_path / "out") / "run.json"
    assert '"augmented"' in run.read_text()


def test_other_words_from_a_masked_language_model(
    classifier: Path, make_bert: Callable[..., Path], sentences: Path, tmp_path: Path
) -> None:
    changes = (
        "[augment]\ncopies = 2\nreplace = 0.9\nsource = 'masked-lm'\n"
        "[[stage]]\nname = 'plain'\nactivations = false\nshare = 0.5\n"
        "[[stage]]\nname = 'more'\nshare = 0.5\naugment = true\ninitialise_from = 'teacher'\n"
    )
    recipe = _recipe(tmp_path, "two-stage-w1a8", changes)
    request = TrainingRequest(train_data=sentences, epochs=2)
    with pytest.raises(UsageError, match="give --augment-model"):
        compress_model(classifier, tmp_path / "out", recipe=recipe, training=request)
    request = dataclasses.replace(request, augment_model=classifier)
    with pytest.raises(UsageError, match="holds no masked language model"):
        compress_model(classifier, tmp_path / "out", recipe=recipe, training=request)
    request = dataclasses.replace(request, augment_model=make_bert("BertForMaskedLM", seed=5))
    compress_model(classifier, tmp_path / "out", recipe=recipe, training=request)
    run = json.loads((training_folder(tmp_path / "out") / "run.json").read_text())
    assert "augmented" in run["data"]


def test_training_without_compression_gives_a_plain_model(
    classifier: Path, sentences: Path, tmp_path: Path
) -> None:
    request = TrainingRequest(train_data=sentences, epochs=2)
    compress_model(classifier, tmp_path / "float", recipe=_recipe(tmp_path, "finetune"), training=request)
    trained = load_checkpoint(tmp_path / "float")
    assert trained.manifest is None
    before = load_checkpoint(classifier).model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in trained.model.state_dict().items())
    # It may be the teacher, and the source, of others.
    request = TrainingRequest(train_data=sentences, epochs=1, teacher=tmp_path / "float")
    recipe = _recipe(tmp_path, "xtc-l12-w2a8")
    compress_model(tmp_path / "float", tmp_path / "low", recipe=recipe, training=request)
    assert load_checkpoint(tmp_path / "low").manifest is not None


@pytest.mark.parametrize(
    ("recipe", "request_", "message"),
    [
        ("xtc-l3-w1a8", None, "trains, which needs data: give --train-data"),
        ("ptq-w8a8", TrainingRequest(train_data="x.tsv"), "does not train"),
        ("xtc-l3-w1a8", TrainingRequest(train_data="x.tsv"), "keeps layer 5 of the encoder"),
        ("quantgpt-w2e2a8", TrainingRequest(train_data="x.tsv"), "for models that generate text"),
        ("xtc-l12-w1a8", TrainingRequest(train_data="x.tsv"), "x.tsv"),
        ("xtc-l12-w1a8", TrainingRequest(train_data="x.tsv", budget="Z"), "no budget 'Z'"),
    ],
)
def test_wrong_requests(
    recipe: str, request_: TrainingRequest | None, message: str, classifier: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        compress_model(classifier, tmp_path / "out", recipe=recipe, training=request_)
    assert list(tmp_path.iterdir()) == []


def test_a_deeper_teacher_is_compared_at_even_distances(
    classifier: Path, make_bert: Callable[..., Path], sentences: Path, tmp_path: Path
) -> None:
    deeper = make_bert("BertForSequenceClassification", seed=6, num_hidden_layers=4)
    request = TrainingRequest(train_data=sentences, teacher=deeper, epochs=1)
    recipe = _recipe(tmp_path, "xtc-l12-w2a8")
    compress_model(classifier, tmp_path / "out", recipe=recipe, training=request)
    uneven = make_bert("BertForSequenceClassification", seed=6, num_hidden_layers=3)
    request = dataclasses.replace(request, teacher=uneven)
    with pytest.raises(UsageError, match="does not divide a teacher of 3"):
        compress_model(classifier, tmp_path / "other", recipe=recipe, training=request)


def test_a_teacher_of_another_task_is_refused(
    classifier: Path, make_bert: Callable[..., Path], sentences: Path, tmp_path: Path
) -> None:
    other = make_bert("BertForSequenceClassification", seed=9, num_labels=3)
    request = TrainingRequest(train_data=sentences, teacher=other)
    with pytest.raises(UsageError, match="teacher"):
        compress_model(classifier, tmp_path / "out", recipe="xtc-l12-w1a8", training=request)


@pytest.mark.parametrize("first", ["two-stage-w2a8", "finetune"])
def test_a_training_starts_where_another_ended(
    classifier: Path, sentences: Path, tmp_path: Path, first: str
) -> None:
    request = TrainingRequest(train_data=sentences, epochs=2)
    compress_model(classifier, tmp_path / "first", recipe=_recipe(tmp_path, first), training=request)
    start = training_folder(tmp_path / "first")
    start = start / "stage-w4" if first == "two-stage-w2a8" else start
    # A learning rate that changes nothing: the weights at the end are those of the start.
    recipe = load_recipe(_recipe(tmp_path, "xtc-l12-w1a8"))
    section = recipe.training.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0})
    layers = recipe.layers.model_copy(update={"keep": (0, 1)}) if recipe.layers is not None else None
    recipe = recipe.model_copy(update={"training": section, "layers": layers})
    again = TrainingRequest(train_data=sentences, epochs=1, start_from=start)
    compress_model(classifier, tmp_path / "second", recipe=recipe, training=again)
    weights = "stage-w4" if first == "two-stage-w2a8" else "stage-train"
    before = load_tensors(training_folder(tmp_path / "first") / weights / "weights.safetensors")
    after = load_tensors(training_folder(tmp_path / "second") / "stage-train" / "weights.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(before[name], after[name])
    source = load_checkpoint(classifier).model.state_dict()[name]
    assert not torch.equal(source, after[name])
    with pytest.raises(UsageError, match="is no training checkpoint"):
        compress_model(
            classifier, tmp_path / "third", recipe=recipe,
            training=dataclasses.replace(again, start_from=tmp_path),
        )  # fmt: skip
