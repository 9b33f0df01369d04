"""Rule `meaning`: right bundles pass however hard they are compressed, and every fault around the graph breaks it.

A fault is made in the float model's folder once the bundle exists: the bundle then means something else.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeq
from edgeq.checkpoint import load_checkpoint
from edgeq.models.transformers_release import RELEASE
from edgeq.parity.meaning import NativeBundle, check_meaning
from edgeq.parity.meaning import run as meaning_run
from edgeq.parity.meaning.library import Reading, Refusal
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.meaning.sentences import PYTHON_VARIABLE
from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.loader import load

STAND_IN = Path(__file__).with_name("stand_in")
WIDTH = 24
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
TOKENS, ANSWERS = (
    {f"tvm host, {program}, {part}" for program in ("Python", "edgeq-run")} for part in ("tokens", "answers")
)
GENERATED = tuple(f"tvm host, {how}, generated texts" for how in ("Python", "edgeq-run"))
DRAWN = "tvm host, Python, drawn tokens"


def write(path, table):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table), encoding="utf-8")


def change(path, **values):
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write(path, {**table, **values})


def without_lowercase(folder):
    table = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    table["normalizer"]["lowercase"] = False
    write(folder / "tokenizer.json", table)
    change(folder / "tokenizer_config.json", do_lower_case=False)


def make_run(folder, source, *, recipe, task=None):
    shutil.copytree(source, folder / "source")
    edgeq.compress_model(folder / "source", folder / "checkpoint", recipe=recipe, task=task)
    edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
    edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))


@pytest.fixture(autouse=True)
def sentence_transformers(monkeypatch):
    """The real library where it is installed, or where the environment says that it is."""
    if PYTHON_VARIABLE not in os.environ and importlib.util.find_spec("sentence_transformers") is None:
        monkeypatch.syspath_prepend(str(STAND_IN))
        yield
        sys.modules.pop("sentence_transformers", None)
    else:
        yield


@pytest.fixture(scope="module")
def sentence_run(make_bert, make_once):
    """A sentence model with everything that stands around a graph, at two bits: compression breaks no rule."""

    def fill(folder):
        source = make_bert(**SMALL)
        kind = "sentence_transformers.models."
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        write(
            source / "modules.json",
            [{"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)],
        )
        write(source / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, "pooling_mode": "cls"})
        (source / "2_Normalize").mkdir()
        prompts = {"query": "quick fox ", "passage": "movie "}
        write(source / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
        write(source / "sentence_bert_config.json", {"max_seq_length": 21, "do_lower_case": False})
        make_run(folder, source, recipe="ptq-w2e2a8")

    return make_once("meaning-sentence", fill)


@pytest.fixture(scope="module")
def classifier_run(make_bert, make_once):
    labels = {0: "bad", 1: "good", 2: "fair"}

    def fill(folder):
        source = make_bert("BertForSequenceClassification", num_labels=3, id2label=labels, **SMALL)
        make_run(folder, source, recipe="ptq-w4a8")

    return make_once("meaning-classifier", fill)


@pytest.fixture(scope="module")
def decoder_run(make_gpt2, make_once):
    settings = {"do_sample": True, "top_k": 4, "temperature": 0.7, "repetition_penalty": 1.3, "eos_token_id": 2}

    def fill(folder):
        source = make_gpt2(n_positions=64, n_layer=1, seed=11)
        write(source / "generation_config.json", {**settings, "no_repeat_ngram_size": 2, "min_length": 9})
        make_run(folder, source, recipe="ptq-w4a8")

    return make_once("meaning-decoder", fill)


@pytest.fixture(scope="module")
def encoder_decoder_run(make_bart, make_once):
    tokens = {"decoder_start_token_id": 2, "eos_token_id": 2, "forced_eos_token_id": 2, "forced_bos_token_id": 0}

    def fill(folder):
        source = make_bart(encoder_layers=1, forced_bos_token_id=0)
        write(source / "generation_config.json", {**tokens, "num_beams": 3, "length_penalty": 2.0, "max_length": 14})
        make_run(folder, source, recipe="ptq-w4a8")

    return make_once("meaning-encoder-decoder", fill)


@pytest.fixture
def source(request, tmp_path):
    """Returns a function that copies a run's float model, to be changed."""

    def copy(run):
        shutil.copytree(run / "source", tmp_path / "source", dirs_exist_ok=True)
        return tmp_path / "source"

    return copy


def found(run, folder=None, *, task=None):
    bundle = NativeBundle("tvm host", run / "host", lambda: load(run / "host", verify=False))
    return check_meaning(folder or run / "source", load_checkpoint(run / "checkpoint"), [bundle], task=task)


def broken(run, folder):
    return {check.stage for check in found(run, folder).checks if not check.passed}


@pytest.mark.parametrize(
    "name",
    ["sentence_run", "classifier_run", "decoder_run", pytest.param("encoder_decoder_run", marks=pytest.mark.slow)],
)
def test_a_right_bundle_means_what_the_library_says(request, name):
    report = found(request.getfixturevalue(name))
    assert report.not_checked == ""
    assert [(check.stage, check.detail) for check in report.checks if not check.passed] == []
    assert {check.rule for check in report.checks} == {"meaning"}
    stages = {check.stage for check in report.checks}
    assert "torch float32, answers" in stages
    assert stages >= TOKENS | ANSWERS or {*GENERATED} <= stages
    assert (DRAWN in stages) == (name == "decoder_run")


def test_what_was_read_is_said(sentence_run, classifier_run):
    tokens = next(check for check in found(sentence_run).checks if check.stage in TOKENS)
    assert tokens.measured["texts"] >= 11  # scripts, prompts, and one that is too long
    assert tokens.detail.endswith("refused: an empty text")
    tokens = next(check for check in found(classifier_run).checks if check.stage in TOKENS)
    assert "a text that is too long" in tokens.detail  # a pipeline does not cut, and neither does the bundle


SENTENCE_FAULTS = {
    "pooling": ("1_Pooling/config.json", {"pooling_mode": "mean"}, ANSWERS),
    "prompt": ("config_sentence_transformers.json", {"prompts": {"query": "lazy ", "passage": "movie "}}, TOKENS),
    "default prompt": ("config_sentence_transformers.json", {"default_prompt_name": "passage"}, TOKENS),
    "longest": ("sentence_bert_config.json", {"max_seq_length": 20}, TOKENS),
    "side": ("tokenizer_config.json", {"truncation_side": "left"}, TOKENS),
}


@pytest.mark.parametrize("fault", SENTENCE_FAULTS)
def test_a_fault_around_a_sentence_model_breaks_the_rule(sentence_run, source, fault):
    folder = source(sentence_run)
    file, values, stages = SENTENCE_FAULTS[fault]
    change(folder / file, **values)
    assert stages <= broken(sentence_run, folder) <= TOKENS | ANSWERS


def test_another_normalisation_breaks_the_rule(sentence_run, source):
    folder = source(sentence_run)
    write(folder / "modules.json", json.loads((folder / "modules.json").read_text())[:2])
    assert broken(sentence_run, folder) == ANSWERS


HEADS = {
    "token-classification": ("BertForTokenClassification", {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}),
    "question-answering": ("BertForQuestionAnswering", {}),
    "fill-mask": ("BertForMaskedLM", {}),
}


@pytest.mark.parametrize("task", ["token-classification", "question-answering", "fill-mask"])
def test_heads_mean_what_the_pipelines_say(make_bert, make_once, source, task):
    def fill(folder):
        architecture, config = HEADS[task]
        sizes = {"max_position_embeddings": 64, **SMALL}
        make_run(folder, make_bert(architecture, **sizes, **config), recipe="ptq-w4a8", task=task)

    run = make_once(f"meaning-{task}", fill)
    report = found(run, task=task)
    if RELEASE >= 5 and task == "question-answering":
        assert "has been removed from transformers" in report.not_checked
        return
    assert report.not_checked == ""
    assert [(check.stage, check.detail) for check in report.checks if not check.passed] == []
    assert {check.stage for check in report.checks} >= TOKENS | ANSWERS
    folder = source(run)
    without_lowercase(folder)
    wrong = {check.stage for check in found(run, folder, task=task).checks if not check.passed}
    assert wrong & TOKENS


CLASSIFIER_FAULTS = {
    "order of labels": ({"id2label": {"0": "good", "1": "bad", "2": "fair"}}, "numbers differ"),
    "names of labels": ({"id2label": {"0": "bad", "1": "good", "2": "neutral"}}, "bad, fair, good instead of bad"),
    "function": ({"problem_type": "multi_label_classification"}, "numbers differ"),
}


@pytest.mark.parametrize("fault", CLASSIFIER_FAULTS)
def test_a_fault_around_a_classifier_breaks_the_rule(classifier_run, source, fault):
    folder = source(classifier_run)
    values, said = CLASSIFIER_FAULTS[fault]
    change(folder / "config.json", **values)
    if "id2label" in values:
        change(folder / "config.json", label2id={label: int(i) for i, label in values["id2label"].items()})
    checks = [check for check in found(classifier_run, folder).checks if not check.passed]
    assert {check.stage for check in checks} == ANSWERS
    assert all(said in check.detail for check in checks)


def test_another_tokenizer_breaks_the_rule(classifier_run, source):
    folder = source(classifier_run)
    without_lowercase(folder)
    assert broken(classifier_run, folder) >= TOKENS


def test_a_float_model_that_edgeq_reads_wrongly_breaks_the_rule(classifier_run, monkeypatch):
    def load_wrongly(folder, **options):
        checkpoint = load_checkpoint(folder, **options)
        with torch.no_grad():
            checkpoint.model.classifier.bias[0] += 0.01
        return checkpoint

    monkeypatch.setattr(meaning_run, "load_checkpoint", load_wrongly)
    assert {check.stage for check in found(classifier_run).checks if not check.passed} == {"torch float32, answers"}


DECODER_FAULTS = {
    "repetitions": {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0},
    "least length": {"min_length": 0, "eos_token_id": list(range(283))},
    "most tokens": {"max_new_tokens": 5},
}


@pytest.mark.parametrize("fault", DECODER_FAULTS)
def test_other_settings_of_a_decoder_break_the_rule(decoder_run, source, fault):
    folder = source(decoder_run)
    change(folder / "generation_config.json", **DECODER_FAULTS[fault])
    assert set(GENERATED) <= broken(decoder_run, folder)


@pytest.mark.parametrize("values", [{"top_k": 1}, {"temperature": 0.5}, {"top_p": 0.9}])
def test_other_chance_breaks_the_rule(decoder_run, source, values):
    folder = source(decoder_run)
    change(folder / "generation_config.json", **values)
    assert broken(decoder_run, folder) == {DRAWN}


ENCODER_DECODER_FAULTS = {
    "beams": {"num_beams": 1},
    "length penalty": {"length_penalty": -8.0},
    "first token": {"forced_bos_token_id": 7},
    "most tokens": {"max_length": 11},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ENCODER_DECODER_FAULTS)
def test_other_settings_of_an_encoder_decoder_break_the_rule(encoder_decoder_run, source, fault):
    folder = source(encoder_decoder_run)
    change(folder / "generation_config.json", **ENCODER_DECODER_FAULTS[fault])
    assert set(GENERATED) <= broken(encoder_decoder_run, folder)


def test_what_was_not_checked_has_a_reason(sentence_run, classifier_run, source, monkeypatch):
    checkpoint = load_checkpoint(classifier_run / "checkpoint")
    bundle = NativeBundle("tvm host", classifier_run / "host", lambda: load(classifier_run / "host"))
    assert "is not known, or gone" in check_meaning(None, checkpoint, [bundle], task=None).not_checked
    assert "runs no bundle" in check_meaning(classifier_run / "source", checkpoint, [], task=None).not_checked
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # what Python takes for not installed
    assert "sentence-transformers is not installed here" in found(sentence_run).not_checked
    monkeypatch.setenv(PYTHON_VARIABLE, "/no/such/python")
    assert "/no/such/python cannot be started" in found(sentence_run).not_checked
    monkeypatch.setenv(PYTHON_VARIABLE, "/bin/false")
    assert "it said nothing" in found(sentence_run).not_checked
    folder = source(classifier_run)
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "does not load" in found(classifier_run, folder).not_checked


def test_sentence_transformers_in_a_python_of_its_own(sentence_run, source, tmp_path, monkeypatch):
    """The program that starts Python here brings the stand-in along, which isolated mode would not find."""
    program = tmp_path / "python"
    if PYTHON_VARIABLE not in os.environ:
        path = "" if importlib.util.find_spec("sentence_transformers").origin.startswith(sys.prefix) else str(STAND_IN)
        program.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv(PYTHON_VARIABLE, str(program))
    report = found(sentence_run)
    assert report.library.startswith("sentence-transformers")
    assert all(check.passed for check in report.checks)
    assert len(report.checks) == 5
    folder = source(sentence_run)
    change(folder / "1_Pooling/config.json", pooling_mode="mean")
    assert broken(sentence_run, folder) == ANSWERS


def test_a_bundle_may_refuse_what_is_longer_than_the_model_is_said_to_read():
    """Rotary positions have no last one, so that transformers reads on."""
    samples = [Sample("short", "a"), Sample("long", "b"), Sample("refused", "c")]
    own = [Reading((1,) * count, None, None, np.zeros(1)) for count in (39, 40)] + [Refusal("too long")]
    found = meaning_run.refusable(samples, own, longest=39)
    assert [sample.may_refuse for sample in found] == [False, True, False]
    assert meaning_run.refusable(samples, own, longest=None) == samples
