"""Parity of decoders: right runs pass in every bit, and a fault is named where it lies."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

import edgeq
from edgeq.backends.onnx_files import cache_type
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import TorchDecoder
from edgeq.parity import run_parity
from edgeq.parity.inputs.decoder import Continuation, make_continuations
from edgeq.parity.kinds import text_generation
from edgeq.parity.rules.chosen_tokens import Choices, ClearChoices, check_free_running, check_steps
from edgeq.targets.builtin.target import load_target
from tests.edgeq.runs import MEANING_OF_GENERATED_TEXTS, change_tensor, edit_graphs, verdicts, write_record


@pytest.fixture(scope="module")
def good_run(make_gpt2, exported, tmp_path_factory):
    """A run of ``ptq-w2e2a8`` with a bundle for this machine."""
    compressed, plain = (exported(make_gpt2, recipe) for recipe in ("ptq-w2e2a8", None))
    run = shutil.copytree(compressed, tmp_path_factory.mktemp("generation") / "run")
    shutil.copytree(plain / "onnx", run / "float-onnx")
    edgeq.compile_bundle(run / "onnx", run / "bundles" / "host", target=load_target("host"))
    write_record(run, source=plain / "checkpoint")
    return run


@pytest.fixture(scope="module")
def decoder(good_run):
    checkpoint = load_checkpoint(good_run / "checkpoint")
    return TorchDecoder(checkpoint.model, checkpoint.adapter)


@pytest.fixture(scope="module")
def texts(good_run, decoder):
    tokenizer = load_checkpoint(good_run / "checkpoint").tokenizer
    return make_continuations(
        decoder, vocabulary=283, longest=33, tokenizer=tokenizer, texts=["the cat sat over the lazy dog"]
    )


def test_a_right_run_passes_every_rule(good_run):
    report = run_parity(good_run)
    assert report.passed, report.first_breach
    assert set(verdicts(report)) == {
        ("torch compressed", "distance"),
        ("torch compressed", "isolated"),
        ("onnxruntime float32", "end-to-end"),
        *(
            (stage, rule)
            for stage in ("onnx reference", "onnxruntime", "tvm host")
            for rule in ("isolated", "end-to-end", "task")
        ),
        *((f"tvm host, {how}", "bit-identical") for how in ("1 thread", "text by text", "without cache")),
        ("tvm host, free-running", "task"),
        *MEANING_OF_GENERATED_TEXTS,
    }
    values = json.loads(json.dumps(report.to_json()))
    assert values["conditions"]["prompts"] == [[3, 10, 14, 13], [5]]
    assert values["conditions"]["new_tokens"] == [20, 16]
    steps = next(check for check in report.checks if (check.stage, check.rule) == ("tvm host", "task"))
    assert steps.measured["steps"] == 4 * 20 + 16
    assert steps.measured["share_clear"] > 0.8


def test_a_wrong_position_shows_end_to_end_only(copied_run):
    def shift(models):
        change_tensor(models["model"], "transformer.wpe.weight", lambda rows: np.roll(rows, 1, axis=0))

    edit_graphs(copied_run, shift)
    report = run_parity(copied_run)
    assert report.first_breach.stage == "onnx reference"
    found = verdicts(report)
    assert found["onnx reference", "isolated"]
    assert not found["onnx reference", "end-to-end"]
    assert not found["onnxruntime", "end-to-end"]
    assert not found["onnxruntime", "task"]


def test_reading_in_steps_gives_what_reading_at_once_gives(decoder, texts, good_run):
    empty = load_checkpoint(good_run / "checkpoint").adapter.cache.empty
    assert [len(text.rows) for text in texts] == [4, 1]
    for text in texts:
        names = [f"past_key_values.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
        cache = {n: t.numpy() for n, t in zip(names, empty(len(text.rows), dtype=torch.float16), strict=True)}
        whole = text.whole(lambda feed: decoder(**feed), cache)["logits"]
        steps = text.step_by_step(lambda feed: decoder(**feed), cache)["logits"]
        assert whole.shape == steps.shape == (len(text.rows), text.new, 283)
        assert np.sqrt(np.mean((whole - steps) ** 2)) < 0.02 * whole.std()
        # The reference made the new tokens itself, reading the texts step by step.
        made = np.stack([row[-text.new :] for row in text.rows])
        np.testing.assert_array_equal(steps.argmax(axis=-1), made)


def test_a_beginning_has_the_same_prompts(texts):
    beginning = texts[0].beginning(3)
    assert beginning.prompts == texts[0].prompts
    assert [row.tolist() for row in beginning.rows] == [
        row[: len(prompt) + 3].tolist() for row, prompt in zip(texts[0].rows, texts[0].prompts, strict=True)
    ]
    assert texts[0].beginning(10**6).new == texts[0].new


def test_calls_of_a_bundle_hold_every_token_once(texts):
    for text in texts:
        read = [[] for _ in text.rows]
        for call in text.bundle_inputs():
            lines = zip(call["input_ids"], call["past_lengths"], call["new_lengths"], strict=True)
            for line, (ids, past, new) in enumerate(lines):
                assert past == len(read[line])
                read[line] += ids[:new].tolist()
        assert read == [row[:-1].tolist() for row in text.rows]


def test_prompts_that_are_too_short_are_filled_with_random_ids(decoder, good_run):
    tokenizer = load_checkpoint(good_run / "checkpoint").tokenizer
    texts = make_continuations(decoder, vocabulary=283, longest=8, tokenizer=tokenizer, texts=[])
    assert [len(prompt) for prompt in texts[0].prompts] == [3, 3, 2, 1]
    assert all(len(row) - 1 <= 8 for text in texts for row in text.rows)


def logits_of(*rows):
    return [{"logits": np.array([rows], np.float32)}]


def judged(want, *runs):
    """The clear choices of ``want``, given what noise runs made of it."""
    choices = Choices.of(want)
    return ClearChoices.under(choices, [choices.moved(run) for run in runs])


def test_clear_choices_must_agree():
    want = logits_of([0.0, 3.0, 1.0], [2.0, 1.9, 0.0])
    other = logits_of([0.0, 3.0, 1.0], [1.9, 2.0, 0.0])
    loud = judged(want, logits_of([0.0, 3.0, 1.0], [1.94, 1.9, 0.0]))
    assert [batch.tolist() for batch in loud.tokens] == [[[1, 0]]]
    found = check_steps("s", other, loud)
    assert found.passed
    assert (found.measured["clear"], found.measured["unclear_changed"]) == (1, 1)
    quiet = judged(want, logits_of([0.0, 3.0, 1.0], [1.96, 1.9, 0.0]))
    verdict = check_steps("s", other, quiet)
    assert not verdict.passed
    assert (verdict.measured["changed"], verdict.measured["steps"], verdict.measured["share_clear"]) == (1, 2, 1.0)
    # A stage that made fewer steps is judged by those.
    assert check_steps("s", logits_of([0.0, 3.0, 1.0]), quiet).measured["steps"] == 1


def test_a_text_may_part_where_the_choice_was_not_clear_and_only_there():
    want = logits_of([0.0, 3.0, 1.0], [2.0, 1.9, 0.0], [0.0, 0.0, 5.0])
    loud = judged(want, logits_of([0.0, 3.0, 1.0], [1.94, 1.9, 0.0], [0.0, 0.0, 5.0]))
    quiet = judged(want, want)
    reference = [np.array([[1, 0, 2]])]
    assert check_free_running("s", reference, reference, quiet).measured["different"] == 0
    after_unclear = [np.array([[1, 1, 0]])]
    found = check_free_running("s", after_unclear, reference, loud)
    assert found.passed
    assert (found.measured["different"], found.measured["texts"]) == (1, 1)
    assert not check_free_running("s", after_unclear, reference, quiet).passed
    assert not check_free_running("s", [np.array([[0, 0, 2]])], reference, loud).passed


def test_a_lead_is_judged_by_the_noise_of_its_own_step():
    calm, wild = [5.0, 4.0, 0.0], [5.0, 4.0, 0.0]
    moved = logits_of([5.0, 4.01, 0.0], [5.0, 4.6, 0.0])
    found = judged(logits_of(calm, wild), moved, logits_of(calm, wild))
    assert [batch.tolist() for batch in found.clear] == [[[True, False]]]
    # Where all noise runs left a step alone, it counts as moved by what leads are moved on the whole.
    assert np.isclose(found.noise, np.sqrt((0.01**2 + 0.6**2) / 4))
    narrow = judged(logits_of([5.0, 4.5, 0.0], wild), logits_of([5.0, 4.5, 0.0], [5.0, 4.6, 0.0]))
    assert not narrow.clear[0][0, 0]


def test_logits_that_move_together_move_no_lead():
    want = logits_of([5.0, 4.0, 0.0])
    found = judged(want, logits_of([7.0, 6.0, 2.0]))
    assert (found.noise, found.clear[0].tolist()) == (0.0, [[True]])


def test_a_third_token_may_be_the_one_that_noise_lifts():
    want = logits_of([5.0, 4.0, 3.9])
    found = judged(want, logits_of([5.0, 4.0, 4.5]))
    assert found.noise == 0.0
    assert not found.clear[0].any()


def test_an_encoder_has_no_cache_to_ask_for(good_run):
    model = onnx.load(good_run / "onnx" / "model.onnx", load_external_data=False)
    assert cache_type(model) == torch.float16
    del model.graph.input[3:]
    with pytest.raises(FormatError, match="should have float16, float32 or int8 caches; export it again"):
        cache_type(model)


def test_a_bundle_of_something_else_is_named(good_run, monkeypatch):
    class Encoder:
        generation = None

    monkeypatch.setattr(text_generation, "read_manifest", lambda _: Encoder)
    with pytest.raises(UnsupportedError, match="does not generate text"):
        run_parity(good_run)


def test_a_lone_text_needs_no_padding():
    text = Continuation((np.array([4, 5, 6, 7]),), 2)
    assert text.prompts == [[4, 5]]
    assert text.feed["input_ids"].tolist() == [[4, 5, 6]]
    assert text.feed["position_ids"].tolist() == [[0, 1, 2]]
