"""A small BART as a bundle: the source is read once, and every way of writing gives the same bits."""

import copy
import itertools
import json
import random

import numpy as np
import pytest

import edgeq
import edgeq.cli.main as cli
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.decoder import Decoder
from edgeq.targets.runtime.manifest_parser import parse_manifest
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import GenerationSettings
from edgeq.targets.runtime.source_decoder import SourceDecoder
from edgeq.targets.runtime.text import run_texts
from tests.targets.changed_manifests import set_value

TEXTS = [[0, 80, 200, 17, 45, 6, 99, 3, 120, 121, 122, 123, 44, 7, 8, 9, 10, 2], [9], [250, 251, 3]]
SAMPLED = Sampling(temperature=1.5, top_k=60, top_p=0.95, repetition_penalty=1.3, seed=11)


@pytest.fixture(scope="module")
def onnx_folder(bart_onnx):
    return bart_onnx


@pytest.fixture(scope="module")
def path(bart_bundle):
    return bart_bundle


@pytest.fixture(scope="module")
def bundle(path):
    return edgeq.load(path, threads=2)


@pytest.fixture
def table(path):
    return json.loads((path / "manifest.json").read_text())


def _ids(results):
    return [result.ids for result in results]


def test_the_bundle_says_what_it_reads_and_keeps(bundle):
    manifest = bundle.manifest
    source = manifest.generation.source
    assert (manifest.model.task, manifest.model.max_length, manifest.generation.end_ids) == ("seq2seq", 30, (2,))
    assert (source.context, source.start_id, source.forced_first, source.forced_last) == (41, 2, 0, 2)
    assert [spec.name for spec in manifest.inputs] == ["input_ids", "past_lengths", "new_lengths", "source_lengths"]
    encode = manifest.functions["encode"]
    assert [spec.name for spec in encode.inputs] == ["input_ids", "attention_mask", "source_lengths"]
    assert [spec.name for spec in encode.outputs] == ["last_hidden_state"]
    assert bundle.new_state(3).bytes == 3 * 2 * 2 * (32 + 48) * 36 * 2
    assert parse_manifest(json.loads(manifest.to_json())) == manifest


def test_the_self_test_reads_and_writes(bundle, path, copy_of):
    (encode, inputs, outputs), *runs = bundle.golden_runs()
    assert (encode, {name for name, _, _ in runs}) == ("encode", {"main"})
    count = outputs["last_hidden_state"].size + 7 * 2 * 283
    assert f"{count} output values agree" in bundle.self_test().detail
    assert [given["input_ids"].shape for _, given, _ in runs] == [(2, 13)] + [(2, 1)] * 6
    for _, given, _ in runs:
        np.testing.assert_array_equal(given["source_lengths"], inputs["source_lengths"])
    damaged = copy_of(path)
    for tensor in (bundle.manifest.golden[0].outputs[0], bundle.manifest.golden[-1].outputs[0]):
        data = bytearray((path / "golden.bin").read_bytes())
        data[tensor.offset] ^= 1
        (damaged / "golden.bin").write_bytes(data)
        result = edgeq.load(damaged, verify=False).self_test()
        assert not result.ok
        assert "differs from the golden one in 1 of" in result.detail


@pytest.mark.slow
def test_the_golden_output_may_come_from_a_bundle(onnx_folder, path, tmp_path):
    out = compile_bundle(onnx_folder, tmp_path / "b", target=load_target("host"), context=30, host_bundle=path)
    assert (out / "golden.bin").read_bytes() == (path / "golden.bin").read_bytes()


def test_forced_tokens_begin_and_end_a_text(bundle):
    for options in ({}, {"beams": Beams(3)}, {"sampling": SAMPLED}):
        for result in bundle.rewrite(TEXTS, max_new_tokens=9, **options):
            assert (result.ids[0], result.ids[-1]) == (0, 2)
            assert result.finish == "end"
    assert _ids(bundle.rewrite(TEXTS, max_new_tokens=1)) == [[2]] * 3


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED])
def test_a_batch_gives_the_tokens_of_each_text_alone(bundle, path, sampling):
    options = {"max_new_tokens": 28, "sampling": sampling}
    alone = [ids for text in TEXTS for ids in _ids(bundle.rewrite([text], **options))]
    assert _ids(bundle.rewrite(TEXTS, **options)) == alone
    assert _ids(bundle.rewrite(TEXTS, **options, batch=2)) == alone
    assert _ids(edgeq.load(path, threads=1).rewrite(TEXTS, **options)) == alone


def test_logits_are_the_same_alone_and_together(bundle):
    targets = np.random.default_rng(5).integers(3, 283, (3, 20))
    alone = []
    for row, text in enumerate(TEXTS):
        decoder = SourceDecoder(bundle, [text])
        alone.append([decoder.append([[token]])[0] for token in targets[row]])
    together = SourceDecoder(bundle, TEXTS)
    for step in range(20):
        logits = together.append([[token] for token in targets[:, step]])
        for row, found in enumerate(logits):
            np.testing.assert_array_equal(found, alone[row][step])


def test_a_text_ends_where_the_context_does(bundle):
    (result,) = bundle.rewrite(TEXTS[:1], max_new_tokens=99, ignore_end=True)
    assert (len(result.ids), result.finish) == (30, "context")
    (result,) = bundle.rewrite(TEXTS[:1], max_new_tokens=30, ignore_end=True, beams=Beams(2))
    assert (len(result.ids), result.finish) == (30, "length")


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("", {}, "text 1 is empty; give at least one word"),
        (["a cat", "  "], {}, "text 2 is empty"),
        ([[]], {}, "text 1 is empty; give at least one token"),
        ([3], {}, "text 1 must be a text or a list"),
        ([], {}, "there is no text"),
        ([[5] * 42], {}, "text 1 has 42 tokens, the model (reads|takes) at most 41; shorten or split it"),
        ("cat " * 60, {}, "at most 41"),
        ([[283]], {}, r"text 1 holds 283; ids lie in 0\.\.282"),
        ("a cat", {"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1"),
        ("a cat", {"beams": Beams(2), "sampling": SAMPLED}, "ask for temperature 0, or for 1 beam"),
    ],
)
def test_wrong_use_is_a_sentence(bundle, texts, options, message):
    with pytest.raises(UsageError, match=message):
        bundle.rewrite(texts, **options)


def test_each_kind_of_bundle_names_the_verb_for_it(bundle, gpt2_bundle):
    uses = (lambda: bundle.generate("a", max_new_tokens=1), lambda: Decoder(bundle), lambda: run_texts(bundle, "a"))
    for wrong in uses:
        with pytest.raises(UsageError, match="generates a text from a text; use `edgeq run`"):
            wrong()
    decoder = edgeq.load(gpt2_bundle)
    for wrong in (lambda: decoder.rewrite("a"), lambda: SourceDecoder(decoder, [[1]])):
        with pytest.raises(UsageError, match="use `edgeq generate`"):
            wrong()


def test_what_compiled_code_must_not_see_is_refused(bundle):
    mask = np.ones((1, 4), np.int64)
    good = {"input_ids": mask * 5, "attention_mask": mask, "source_lengths": np.array([4])}
    state = bundle.new_state(1)
    assert bundle.encode_source(good, state=state)["last_hidden_state"].shape == (1, 4, 36)
    for name, value, message in (
        ("source_lengths", np.array([5]), "'source_lengths' holds 5, but a row of ids has 4"),
        ("source_lengths", np.array([0]), r"values lie in 1\.\.41"),
        ("source_lengths", np.array([3]), "'attention_mask' must be 1 for the tokens"),
        ("input_ids", mask * 283, r"values lie in 0\.\.282"),
        ("attention_mask", mask[:, :3], "has size 3 where 4 is expected"),
    ):
        with pytest.raises(UsageError, match=message):
            bundle.encode_source(good | {name: value}, state=state)
    with pytest.raises(UsageError, match="the state is for 2 sequences, the inputs hold 1"):
        bundle.encode_source(good, state=bundle.new_state(2))
    long = np.ones((1, 42), np.int64)
    with pytest.raises(UsageError, match="the model takes at most 41"):
        bundle.encode_source({"input_ids": long, "attention_mask": long, "source_lengths": [41]}, state=state)


WRONG = [
    (("generation", "settings", "beams", "count"), 0, r"the number of beams must be an integer in 1\.\.64"),
    (("generation", "settings", "beams", "early_stopping"), 1, "early_stopping must be True, False"),
    (("generation", "settings", "sampling", "top_k"), 5, "top_k has no effect"),
    (("generation", "settings", "sampling", "top_p"), "x", "'top_p' must be a number"),
    (("generation", "settings", "min_length"), -1, "'min_length' must be an integer of at least 0"),
    (("generation", "settings", "max_length"), 0, "'max_length' must be an integer of at least 1"),
    (("generation", "settings"), None, "must be a table"),
    (("model", "task"), "generate", "do not belong together"),
    (("generation", "source", "context"), 40, r"must lie in 1\.\.40, found 1\.\.41"),
    (("generation", "source", "start_id"), 283, r"start and forced ids must lie in 0\.\.282"),
    (("generation", "source", "forced_last"), 999, r"start and forced ids must lie in 0\.\.282"),
    (("generation", "source", "forced_first"), "x", "'forced_first' must be an integer"),
    (("functions", "encode", "outputs"), [], "at least one input and one output"),
    (("functions", "encode", "inputs", 0, "maximum"), 400, r"must lie in 0\.\.282"),
    (("functions", "main", "state", 2, "shape", 2), "context_blocks", "must be the caches of the encoder input"),
    (("functions", "main", "state", 0, "shape", 2), "source_context_blocks", "must be floats"),
    (("functions", "main", "inputs", 3, "minimum"), 0, r"'source_lengths' of an encoder-decoder must lie in 1\.\.41"),
    (("golden", 0, "inputs"), [], "'golden' does not hold the function's inputs"),
    (("golden", 0, "outputs", 0, "offset"), 1 << 40, "ends at byte"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_value_in_the_manifest_is_a_sentence(table, place, value, message):
    set_value(table, place, value)
    with pytest.raises(FormatError, match=message):
        parse_manifest(table)


def test_an_encoder_of_another_interface_is_refused(table):
    for item in (table["functions"]["encode"]["inputs"][1], table["golden"][0]["inputs"][1]):
        item["name"] = "mask"
    with pytest.raises(FormatError, match="the inputs of an encoder are input_ids, attention_mask, source_lengths"):
        parse_manifest(table)


def test_half_a_source_is_a_sentence(table):
    without = copy.deepcopy(table)
    del without["functions"]["encode"]
    with pytest.raises(FormatError, match="'golden' is of 'encode', which is no function"):
        parse_manifest(without)
    without["golden"] = without["golden"][1:]
    with pytest.raises(FormatError, match="do not belong together"):
        parse_manifest(without)
    table["generation"]["source"] = None
    with pytest.raises(FormatError, match="do not belong together"):
        parse_manifest(table)


def test_random_damage_never_escapes_as_another_error(table):
    chance = random.Random(6)  # noqa: S311
    refused = 0
    for _ in range(200):
        damaged = copy.deepcopy(table)
        place, key = damaged["generation"], "source"
        while isinstance(place[key], dict | list) and place[key] and chance.random() < 0.85:
            place = place[key]
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        place[key] = chance.choice([None, True, -1, 1 << 70, 1.5, "", "x", [], {}, [None], {"a": 1}])
        try:
            parse_manifest(damaged)
        except EdgeqError:
            refused += 1
    assert refused > 150


def test_context_must_be_one_that_the_model_has(onnx_folder, tmp_path):
    with pytest.raises(UsageError, match=r"--context must lie in 1\.\.41"):
        compile_bundle(onnx_folder, tmp_path / "out", target=load_target("host"), context=42)


def _cli(capsys, *arguments):
    code = cli.main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_run_prints_one_object_a_text(path, bundle, capsys):
    options = ("--text", "the cat sat", "--text", "a <mask> dog", "--max-new-tokens", 7)
    expected = bundle.rewrite(["the cat sat", "a <mask> dog"], max_new_tokens=7, beams=Beams(3, 2.0))
    code, out, err = _cli(capsys, path, *options, "--num-beams", 3, "--length-penalty", 2)
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [result.to_json() for result in expected]
    code, out, _ = _cli(capsys, path, *options, "--json")
    greedy = json.loads(out)
    assert (code, [result["ids"] for result in greedy]) == (
        0,
        _ids(bundle.rewrite(["the cat sat", "a <mask> dog"], max_new_tokens=7)),
    )
    assert set(greedy[0]) == {"text", "tokens", "generated", "ids", "finish"}


def test_run_says_what_is_wrong_in_a_sentence(path, gpt2_bundle, capsys):
    for arguments, message in (
        ((path, "--text", ""), "text 1 is empty"),
        ((path, "--text", "cat " * 60), "at most 41"),
        ((path, "--text", "a", "--num-beams", 0), "the number of beams must be an integer in 1..64"),
        ((path, "--text", "a", "--early-stopping"), "belong to beam search"),
        ((gpt2_bundle, "--text", "a", "--num-beams", 2), "--num-beams does not apply; leave it out"),
    ):
        code, out, err = _cli(capsys, *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert message in err
    assert cli.main(["verify", str(path)]) == 0


def test_the_settings_of_the_bundle_count_where_nothing_else_is_said(path, bundle, with_settings, capsys):
    settings = GenerationSettings(
        Sampling(repetition_penalty=1.3), Beams(3, 2.0, early_stopping=True), no_repeat_ngram_size=2, min_length=7,
        max_length=16,
    )  # fmt: skip
    changed = with_settings(path, settings)
    loaded = edgeq.load(changed)
    assert loaded.manifest.generation.settings == settings
    explicit = {
        "max_new_tokens": 15, "min_new_tokens": 6, "no_repeat_ngram_size": 2,
        "sampling": Sampling(repetition_penalty=1.3), "beams": Beams(3, 2.0, True),
    }  # fmt: skip
    expected = bundle.rewrite(TEXTS, **explicit)
    assert loaded.rewrite(TEXTS) == expected
    assert _ids(expected) != _ids(bundle.rewrite(TEXTS, max_new_tokens=15))
    plain = loaded.rewrite(TEXTS, beams=Beams(), sampling=Sampling(), min_new_tokens=0, no_repeat_ngram_size=0)
    assert _ids(plain) == _ids(bundle.rewrite(TEXTS, max_new_tokens=15))
    assert _ids(loaded.rewrite(TEXTS, sampling=SAMPLED)) == _ids(
        bundle.rewrite(TEXTS, sampling=SAMPLED, max_new_tokens=15, min_new_tokens=6, no_repeat_ngram_size=2)
    )
    said = ("--text", "the cat sat", "--no-early-stopping", "--length-penalty", 0.5, "--min-new-tokens", 2)
    code, out, _ = _cli(capsys, changed, *said, "--repetition-penalty", 1, "--no-repeat-ngram-size", 0)
    (found,) = bundle.rewrite("the cat sat", max_new_tokens=15, min_new_tokens=2, beams=Beams(3, 0.5))
    assert (code, json.loads(out)) == (0, found.to_json())


def test_rules_hold_in_greedy_texts_and_beams(bundle):
    for beams in (Beams(), Beams(3)):
        for ids in _ids(bundle.rewrite(TEXTS, max_new_tokens=25, no_repeat_ngram_size=2, beams=beams)):
            body = [2, *ids[:-1]]  # the last token may be a forced one
            pairs = list(itertools.pairwise(body))
            assert len(set(pairs)) == len(pairs)
