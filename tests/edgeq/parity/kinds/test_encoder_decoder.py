"""Parity of encoder-decoders: right runs pass in every bit, and a fault is named where it lies."""

import json
import shutil

import numpy as np
import pytest
import torch

import edgeq
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import FormatError
from edgeq.parity import run_parity
from edgeq.parity.inputs.encoder_decoder import PARTS, at_once, make_encoder_decoder_texts, torch_parts
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.model_info import TargetTokens
from tests.edgeq.runs import MEANING_OF_GENERATED_TEXTS, change_tensor, edit_graphs, verdicts, write_record


@pytest.fixture(scope="module")
def good_run(make_bart, exported, tmp_path_factory):
    """A run of ``ptq-w2e2a8`` with a bundle for this machine."""
    options = {"encoder_layers": 1, "forced_bos_token_id": 0}
    compressed, plain = (exported(make_bart, recipe, **options) for recipe in ("ptq-w2e2a8", None))
    run = shutil.copytree(compressed, tmp_path_factory.mktemp("rewriting") / "run")
    shutil.copytree(plain / "onnx", run / "float-onnx")
    edgeq.compile_bundle(run / "onnx", run / "bundles" / "host", target=load_target("host"))
    write_record(run, source=plain / "checkpoint")
    return run


@pytest.fixture(scope="module")
def parts(good_run):
    checkpoint = load_checkpoint(good_run / "checkpoint")
    return torch_parts(checkpoint.model, checkpoint.adapter, cache_dtype=torch.float16)


@pytest.fixture(scope="module")
def texts(good_run, parts):
    return make_encoder_decoder_texts(
        parts,
        tokens=TargetTokens(start=2, forced_first=0, forced_last=None),
        vocabulary=283,
        longest_source=33,
        longest=20,
        tokenizer=load_checkpoint(good_run / "checkpoint").tokenizer,
        texts=["the cat sat over the lazy dog"],
    )


def rolled(rows):
    return np.roll(rows, 1, axis=0)


def test_a_right_run_passes_every_rule(good_run):
    report = run_parity(good_run)
    assert report.passed, report.first_breach
    stages = ("onnx reference", "onnxruntime", "tvm host")
    assert set(verdicts(report)) == {
        ("torch compressed", "distance"),
        *((f"{stage} {part}", "isolated") for stage in ("torch compressed", *stages) for part in PARTS),
        ("onnxruntime float32", "end-to-end"),
        *((stage, rule) for stage in stages for rule in ("end-to-end", "task")),
        *((f"{stage} encoder", "end-to-end") for stage in stages),
        *((f"tvm host, {how}", "bit-identical") for how in ("1 thread", "text by text", "without cache")),
        ("tvm host, free-running", "task"),
        *MEANING_OF_GENERATED_TEXTS,
    }
    values = json.loads(json.dumps(report.to_json()))
    assert values["conditions"]["encoder_inputs"] == [[3, 10, 17, 31], [5]]
    assert values["conditions"]["new_tokens"] == [33, 16]
    steps = next(check for check in report.checks if (check.stage, check.rule) == ("tvm host", "task"))
    assert steps.measured["steps"] == 4 * 33 + 16


@pytest.mark.slow
def test_wrong_positions_of_the_target_show_in_the_decoder_only(copied_run):
    def shift(models):
        for part in PARTS[1:]:
            change_tensor(models[part], "model.decoder.embed_positions.weight", rolled)

    edit_graphs(copied_run, shift)
    report = run_parity(copied_run)
    assert (report.first_breach.stage, report.first_breach.rule) == ("onnx reference", "end-to-end")
    found = verdicts(report)
    assert found["onnx reference encoder", "end-to-end"]
    assert found["onnxruntime decoder_with_past_model", "isolated"]
    assert not found["onnxruntime", "end-to-end"]


@pytest.mark.slow
def test_wrong_positions_of_the_source_show_in_the_encoder_first(copied_run):
    def shift(models):
        change_tensor(models[PARTS[0]], "model.encoder.embed_positions.weight", rolled)

    edit_graphs(copied_run, shift)
    assert run_parity(copied_run).first_breach.stage == "onnx reference encoder"


@pytest.mark.slow
def test_a_fault_of_later_steps_alone_is_found(copied_run):
    """What the first step computes with the same weights is right."""

    def scale(models):
        change_tensor(models[PARTS[2]], "model.decoder.layers.1.fc2.scale", lambda scales: scales * np.float32(1.01))

    edit_graphs(copied_run, scale)
    report = run_parity(copied_run)
    found = verdicts(report)
    assert report.first_breach.stage == "onnx reference decoder_with_past_model"
    assert "first model.decoder.layers.1.fc2" in report.first_breach.detail
    assert found["onnx reference", "end-to-end"]  # the reference evaluator reads everything by the first step
    assert not found["onnxruntime", "end-to-end"]


def test_reading_in_steps_gives_what_reading_at_once_gives(parts, texts):
    assert [len(text.sources) for text in texts] == [4, 1]
    for text in texts:
        whole, steps = at_once(text.feed, parts), text.step_by_step(parts)
        assert whole["logits"].shape == steps["logits"].shape == (len(text.sources), text.new, 283)
        for name, value in whole.items():
            assert np.sqrt(np.mean((value - steps[name]) ** 2)) < 0.02 * value.std()
        assert not whole["last_hidden_state"][text.source["attention_mask"] == 0].any()
        # The reference made the new tokens itself, step by step; the first is set by the configuration.
        assert not text.generated[:, 0].any()
        np.testing.assert_array_equal(steps["logits"].argmax(axis=-1)[:, 1:], text.generated[:, 1:])


def test_a_beginning_and_a_single_text_keep_their_sources(texts):
    beginning = texts[0].beginning(3)
    assert (beginning.new, beginning.sources) == (3, texts[0].sources)
    np.testing.assert_array_equal(beginning.generated, texts[0].generated[:, :3])
    assert texts[0].beginning(10**6).new == texts[0].new
    for row, single in enumerate(texts[0].one_by_one):
        np.testing.assert_array_equal(single.source["input_ids"], texts[0].sources[row][None])
        np.testing.assert_array_equal(single.targets, texts[0].targets[[row]])


def test_a_missing_graph_is_named(copied_run):
    (copied_run / "onnx" / "decoder_model.onnx").unlink()
    with pytest.raises(FormatError, match=r"decoder_model\.onnx"):
        run_parity(copied_run)


def test_the_calls_for_an_emulator_are_the_steps(good_run, texts):
    bundle = edgeq.load(good_run / "bundles" / "host", threads=1)
    for text in texts:
        state = bundle.new_state(len(text.sources))
        encoded = bundle.encode_source(text.bundle_source, state=state)
        got = text.of_calls(encoded, [bundle.run(inputs, state=state) for inputs in text.bundle_inputs()])
        for name, value in text.in_bundle(bundle).items():
            np.testing.assert_array_equal(got[name], value)


@pytest.mark.slow
@pytest.mark.needs("arm64-emulator")
def test_bundles_for_arm_compute_the_same_bits(good_run, tmp_path):
    run = shutil.copytree(good_run, tmp_path / "run")
    host = run / "bundles" / "host"
    for name in ("cortex-a72", "cortex-a76"):
        out = run / "bundles" / name
        edgeq.compile_bundle(run / "onnx", out, target=load_target(name), host_bundle=host)
    report = run_parity(run)
    assert report.passed, report.first_breach
    exact = {check.stage for check in report.checks if check.rule == "bit-identical"}
    assert {"tvm cortex-a72", "tvm cortex-a76"} <= exact
