"""``edgeq-run`` with a BART: it reads sources and writes the texts that Python writes, with the same scores."""

import json
import random
import struct

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, UsageError
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import GenerationSettings
from tests.targets.changed_manifests import with_value, write_table
from tests.targets.libedgeq.program import NATIVE, run_program

TEXTS = [[0, 80, 200, 17, 45, 6, 99, 3, 120, 121, 122, 123, 44, 7, 8, 9, 10, 2], [9], [250, 251, 3], [5] * 41]
SAMPLED = Sampling(temperature=1.5, top_k=60, top_p=0.95, repetition_penalty=1.3, seed=11)


@pytest.fixture(scope="module")
def board(bart_board):
    return bart_board(NATIVE)


@pytest.fixture(scope="module")
def host(bart_bundle):
    return edgeq.load(bart_bundle)


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("".join(" ".join(map(str, text)) + "\n" for text in TEXTS))
    return path


OPTIONS = [
    {"max_new_tokens": 28},
    {"max_new_tokens": 20, "sampling": SAMPLED},
    {"max_new_tokens": 25, "no_repeat_ngram_size": 2, "min_new_tokens": 12},
    {"max_new_tokens": 12, "no_repeat_ngram_size": 1, "sampling": Sampling(temperature=3.0, top_p=0.9, seed=5)},
    {"max_new_tokens": 9, "beams": Beams(2)},
    {"max_new_tokens": 22, "beams": Beams(4, 2.0, early_stopping=True)},
    {"max_new_tokens": 22, "beams": Beams(3, 0.6, "never"), "no_repeat_ngram_size": 3, "min_new_tokens": 4},
    {"max_new_tokens": 15, "beams": Beams(5, -1.5), "sampling": Sampling(repetition_penalty=1.4)},
    {"max_new_tokens": 200, "beams": Beams(2), "ignore_end": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_c_and_python_write_the_same_texts(board, host, options):
    expected = [result.ids for result in host.rewrite(TEXTS, **options)]
    assert emulator.generate(board, TEXTS, **options) == expected
    assert emulator.generate(board, TEXTS, **options, batch=3, threads=1) == expected


@pytest.mark.slow
def test_scores_and_ends_are_the_same_under_the_sanitizers(board, host, sanitized, ids):
    flags = ["--generate", 22, "--num-beams", 3, "--length-penalty", 1.7, "--early-stopping", "never", "--json"]
    lines = [json.loads(line) for line in run_program(sanitized, board, "--ids", ids, *flags).stdout.splitlines()]
    expected = host.rewrite(TEXTS, max_new_tokens=22, beams=Beams(3, 1.7, "never"))
    found = [(line["ids"], line["finish"], line["score"], line["prompt_tokens"]) for line in lines]
    assert found == [(result.ids, result.finish, result.score, result.tokens) for result in expected]


def test_a_batch_under_the_sanitizers_is_the_texts_one_by_one(board, host, sanitized, ids):
    expected = host.rewrite(TEXTS, max_new_tokens=30, ignore_end=True, no_repeat_ngram_size=2)
    flags = ["--ids", ids, "--generate", 30, "--ignore-end", "--no-repeat-ngram-size", 2]
    for batch in (1, 3, 8):
        result = run_program(sanitized, board, *flags, "--batch", batch)
        assert result.stdout == "".join(" ".join(map(str, r.ids)) + "\n" for r in expected)
    assert "line 4: 30 tokens (length), " in result.stderr


def test_the_self_test_reads_and_writes(board, host, sanitized, copy_of):
    count = host.golden_runs()[0][2]["last_hidden_state"].size + 7 * 2 * 283
    result = run_program(sanitized, board, "--self-test")
    assert result.stdout == f"self-test passed: {count} output values agree with the golden ones in every bit\n"
    damaged = copy_of(board)
    golden = json.loads((board / "manifest.json").read_text())["golden"]
    for tensor in (golden[0]["outputs"][0], golden[6]["outputs"][0]):
        data = bytearray((board / "golden.bin").read_bytes())
        data[tensor["offset"]] ^= 1
        (damaged / "golden.bin").write_bytes(data)
        result = run_program(sanitized, damaged, "--self-test", "--no-verify")
        assert result.returncode == 1
        assert f"1 of {count} output values differ" in result.stderr


def test_the_settings_of_the_bundle_count_where_nothing_else_is_said(board, host, with_settings):
    settings = GenerationSettings(
        Sampling(repetition_penalty=1.3), Beams(3, 2.0, early_stopping=True), no_repeat_ngram_size=2, min_length=7,
        max_length=16,
    )  # fmt: skip
    changed = with_settings(board, settings)
    expected = host.rewrite(
        TEXTS, max_new_tokens=15, min_new_tokens=6, no_repeat_ngram_size=2, sampling=settings.sampling,
        beams=settings.beams,
    )  # fmt: skip
    assert emulator.generate(changed, TEXTS) == [result.ids for result in expected]
    plain = {"sampling": Sampling(), "beams": Beams(), "min_new_tokens": 0, "no_repeat_ngram_size": 0}
    expected = host.rewrite(TEXTS, max_new_tokens=9, **plain)
    assert emulator.generate(changed, TEXTS, max_new_tokens=9, **plain) == [result.ids for result in expected]


def _sets(host):
    lengths = np.array([18, 3])
    mask = (np.arange(18) < lengths[:, None]).astype(np.int64)
    source = {"input_ids": np.arange(36).reshape(2, 18) + 5, "attention_mask": mask, "source_lengths": lengths}
    new = np.array([3, 1])
    sets = [{"input_ids": np.array([[2, 7, 8], [2, 0, 0]]), "new_lengths": new, "source_lengths": lengths}]
    sets += [
        {"input_ids": [[9], [4]], "past_lengths": new + step, "new_lengths": [1, 1], "source_lengths": lengths}
        for step in range(3)
    ]
    state = host.new_state(2)
    encoded = host.encode_source(source, state=state)
    return source, sets, encoded, [host.run(given, state=state) for given in sets]


def test_sets_of_tensors_read_a_source_first(board, host):
    source, sets, encoded, outputs = _sets(host)
    found_encoded, found = emulator.run_with_source(board, source, sets, threads=2)
    np.testing.assert_array_equal(found_encoded["last_hidden_state"], encoded["last_hidden_state"])
    for one, other in zip(found, outputs, strict=True):
        np.testing.assert_array_equal(one["logits"], other["logits"])


@pytest.mark.slow
def test_a_decoder_reads_no_source(gpt2_board, host):
    source, sets, _, _ = _sets(host)
    with pytest.raises(UsageError, match="has no encoder input"):
        emulator.run_with_source(gpt2_board(NATIVE), source, sets)
    with pytest.raises(EdgeqError, match="beam search is for encoder-decoders"):
        emulator.generate(gpt2_board(NATIVE), [[3]], max_new_tokens=2, beams=Beams(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the bundle generates text: give --generate N"),
        (["--generate", "many"], "--generate takes a number in 1.."),
        (["--generate", "3", "--num-beams", "65"], "--num-beams takes a number in 1..64"),
        (["--generate", "3", "--length-penalty", "2"], "belong to beam search; ask for more than 1 beam"),
        (["--generate", "3", "--early-stopping", "yes"], "belong to beam search"),
        (["--generate", "3", "--num-beams", "2", "--early-stopping", "soon"], "takes yes, no or never, found 'soon'"),
        (["--generate", "3", "--num-beams", "2", "--length-penalty", "101"], "length_penalty must be a number in"),
        (["--generate", "3", "--num-beams", "2", "--temperature", "1"], "ask for temperature 0, or for 1 beam"),
        (["--generate", "3", "--batch", "0"], "--batch takes a number in 1..1024"),
        (["--generate", "3", "--no-repeat-ngram-size", "-1"], "--no-repeat-ngram-size takes a number in 0.."),
        (["--num-beams", "2"], "need --generate"),
    ],
)
def test_wrong_options_are_a_sentence(board, sanitized, ids, options, message):
    result = run_program(sanitized, board, "--ids", ids, *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"), [("283\n", "line 1 of the ids holds 283"), ("5 " * 42 + "\n", "has 42 tokens")]
)
def test_wrong_sources_are_refused_before_anything_runs(board, sanitized, tmp_path, text, message):
    (tmp_path / "ids").write_text(text)
    result = run_program(sanitized, board, "--ids", tmp_path / "ids", "--generate", 3)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def _source_set(mask, length, function=1):
    ids, masks = struct.pack("<I4q", 2, 1, 2, 5, 6), struct.pack("<I4q", 2, 1, 2, *mask)
    return b"EQT1" + struct.pack("<II", 1, function) + ids + masks + struct.pack("<I2q", 1, 1, length)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_source_set((1, 1), 3), "'source_lengths' holds 3, but a row of ids has 2 tokens"),
        (_source_set((1, 1), 0), "values lie in 1..41"),
        (_source_set((1, 0), 2), "'attention_mask' must be 1 for the tokens"),
        (_source_set((0, 1), 1), "'attention_mask' must be 1 for the tokens"),
        (_source_set((1, 1), 2, function=2), "a set is for function 2, which no bundle has"),
        (b"EQT1" + struct.pack("<I", 1), "is cut off"),
    ],
)
def test_sources_in_tensors_are_checked(board, sanitized, tmp_path, data, message):
    (tmp_path / "in").write_bytes(data)
    result = run_program(sanitized, board, "--tensors", tmp_path / "in", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


WRONG = [
    (("model", "task"), "generate", "'encode' do not belong together"),
    (("generation", "source", "context"), 40, "must lie in the vocabulary, in 0..1 and in 1..40"),
    (("generation", "source", "start_id"), 283, "'start_id' is 283, which is not possible"),
    (("generation", "source", "forced_last"), 999, "'forced_last' is 999"),
    (("generation", "source", "forced_first"), "x", "'forced_first' must be an integer"),
    (("functions", "encode", "outputs"), [], "has another number of outputs than the function"),
    (("functions", "encode", "inputs", 0, "maximum"), 400, "must lie in the vocabulary"),
    (("functions", "encode", "inputs", 1, "name"), "mask", "the inputs of an encoder are"),
    (("functions", "main", "state", 2, "shape", 2), "context_blocks", "'main' has no cache like 'source_keys.0'"),
    (("functions", "main", "state", 0, "shape", 2), "source_context_blocks", "must be floats or int8 [batch, heads,"),
    (("functions", "main", "inputs", 3, "minimum"), 0, "'source_lengths' must lie in 1..41"),
    (("golden", 0, "inputs"), [], "golden 'inputs' is incomplete"),
    (("golden", 0, "outputs", 0, "offset"), 1 << 40, "lies outside its file"),
    (("generation", "settings", "beams", "count"), 65, "'count' is 65"),
    (("generation", "settings", "beams", "early_stopping"), 1, "'early_stopping' must be true, false"),
    (("generation", "settings", "beams", "length_penalty"), 1e9, "length_penalty must be a number"),
    (("generation", "settings", "sampling", "temperature"), "hot", "'temperature' must be a number"),
    (("generation", "settings", "max_new_tokens"), 0, "'max_new_tokens' is 0"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_manifest_that_does_not_fit_is_refused(board, copy_of, sanitized, place, value, message):
    odd = with_value(copy_of(board), place, value)
    result = run_program(sanitized, odd, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_hostile_manifests_never_crash(board, copy_of, sanitized, json_numbers):
    """Random values with a valid digest: a sentence, or a run within its memory."""
    hostile = copy_of(board)
    original = (hostile / "manifest.json").read_bytes()
    chance = random.Random(13)  # noqa: S311
    values = b'-1 0 1 2 16 42 1024 9223372036854775807 1e3 null "batch" [] {}'.split()
    starts = [original.index(key) for key in (b'"golden"', b'"generation"')]
    numbers = [json_numbers(original, start) for start in starts]
    refused = 0
    for _ in range(60):
        data = bytearray(original)
        at, end = chance.choice(chance.choice(numbers))
        data[at:end] = chance.choice(values)
        write_table(hostile, bytes(data))
        job = chance.choice([["--self-test"], ["--generate", "4", "--num-beams", "2", "--ids"]])
        (hostile / "ids").write_text("5 6 7\n")
        files = [hostile / "ids"] if job[-1] == "--ids" else []
        result = run_program(sanitized, hostile, *job, *files, "--no-verify")
        refused += result.returncode != 0
    assert refused > 15


@pytest.mark.slow
@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize("core", [pytest.param("cortex-a72", marks=pytest.mark.slow), "cortex-a76"])
def test_arm_writes_the_texts_of_this_machine(bart_board, host, core):
    arm = bart_board(core)
    assert emulator.self_test(arm).ok
    for options in (OPTIONS[0], OPTIONS[1], OPTIONS[6]):
        assert emulator.generate(arm, TEXTS, **options) == [r.ids for r in host.rewrite(TEXTS, **options)]
    source, sets, encoded, outputs = _sets(host)
    found_encoded, found = emulator.run_with_source(arm, source, sets)
    np.testing.assert_array_equal(found_encoded["last_hidden_state"], encoded["last_hidden_state"])
    np.testing.assert_array_equal(found[-1]["logits"], outputs[-1]["logits"])
