"""``edgeq-run --generate``: the C program makes the tokens that Python makes."""

import json
import random
import struct

import numpy as np
import pytest

import edgeq
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import Filters, GenerationSettings, changed_sampling
from tests.targets.changed_manifests import with_value, write_table
from tests.targets.libedgeq.program import NATIVE, run_program

PROMPTS = [[5, 80, 200, 17], [9], [(7 * i) % 283 for i in range(140)]]


@pytest.fixture(scope="module")
def board(gpt2_board):
    return gpt2_board(NATIVE)


@pytest.fixture(scope="module")
def host(gpt2_bundle):
    return edgeq.load(gpt2_bundle)


@pytest.fixture
def ids(tmp_path):
    """Returns a function that writes a file of ids."""

    def write(*lines):
        path = tmp_path / "ids.txt"
        path.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
        return path

    return write


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.7, top_k=40, seed=(1 << 63) - 1),
    Sampling(temperature=1.3, top_p=0.9, seed=1),
    Sampling(temperature=2.5, top_k=100, top_p=0.8, repetition_penalty=1.3),
    Sampling(repetition_penalty=0.8),
    Sampling(temperature=0.001, top_k=1000),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_c_and_python_choose_the_same_tokens(board, host, sampling):
    expected = host.generate(PROMPTS, max_new_tokens=100, sampling=sampling).results()
    assert emulator.generate(board, PROMPTS, max_new_tokens=100, sampling=sampling) == [r.ids for r in expected]


@pytest.mark.parametrize("sampling", [SAMPLINGS[0], SAMPLINGS[4]])
def test_rules_and_batches_give_the_tokens_of_python(board, host, sampling):
    options = {"max_new_tokens": 60, "min_new_tokens": 30, "no_repeat_ngram_size": 2, "sampling": sampling}
    expected = [result.ids for result in host.generate(PROMPTS, **options).results()]
    assert emulator.generate(board, PROMPTS, **options) == expected
    assert emulator.generate(board, PROMPTS, **options, batch=2, threads=1) == expected
    assert expected != [r.ids for r in host.generate(PROMPTS, max_new_tokens=60, sampling=sampling).results()]


def test_the_settings_of_the_bundle_count_where_nothing_else_is_said(board, host, with_settings):
    sampled = Sampling(temperature=1.3, top_k=30, seed=4)
    settings = GenerationSettings(sampled, no_repeat_ngram_size=3, min_length=150, max_length=24)
    changed = with_settings(board, settings)
    expected = [host.generate([p], max_new_tokens=max(24 - len(p), 1), sampling=sampled, no_repeat_ngram_size=3,
                              min_new_tokens=150 - len(p)).results()[0].ids for p in PROMPTS]  # fmt: skip
    assert emulator.generate(changed, PROMPTS) == expected
    greedy = {"sampling": Sampling(), "max_new_tokens": 9, "min_new_tokens": 0, "no_repeat_ngram_size": 0}
    expected = [result.ids for result in host.generate(PROMPTS, **greedy).results()]
    assert emulator.generate(changed, PROMPTS, **greedy) == expected


def test_a_temperature_brings_the_filters_of_a_model_that_draws_nothing(board, host, sanitized, ids, with_settings):
    settings = GenerationSettings(filters=Filters(top_k=3, top_p=0.9))
    changed, path = with_settings(board, settings), ids([9])

    def run(*flags):
        result = run_program(sanitized, changed, "--ids", path, "--generate", 20, "--json", "--seed", 4, *flags)
        return json.loads(result.stdout)["ids"]

    def expected(**values):
        sampling = changed_sampling(settings, seed=4, **values)
        return sampling, host.generate([[9]], max_new_tokens=20, sampling=sampling).results()[0].ids

    for flags, values, meant in (
        ([], {}, Sampling(seed=4)),
        (["--temperature", 2], {"temperature": 2.0}, Sampling(2.0, 3, 0.9, seed=4)),
        (["--temperature", 2, "--top-k", 0], {"temperature": 2.0, "top_k": 0}, Sampling(2.0, 0, 0.9, seed=4)),
        (["--temperature", 0], {"temperature": 0.0}, Sampling(seed=4)),
    ):
        sampling, found = expected(**values)
        assert sampling == meant
        assert run(*flags) == found


def test_c_sampling_is_pythons_on_any_logits(board, host, sanitized, ids):
    """Many seeds through the sanitizers: ties, ends and limits of the filters."""
    path = ids([9])
    for seed in range(12):
        sampling = Sampling(temperature=0.5 + seed, top_k=seed * 30, top_p=1 - seed / 15, seed=seed)
        flags = ["--temperature", sampling.temperature, "--top-k", sampling.top_k, "--top-p", repr(sampling.top_p)]
        result = run_program(sanitized, board, "--ids", path, "--generate", 12, "--json", "--seed", seed, *flags)
        (expected,) = host.generate([[9]], max_new_tokens=12, sampling=sampling).results()
        found = json.loads(result.stdout)
        assert (found["ids"], found["finish"]) == (expected.ids, expected.finish)


def test_the_self_test_covers_every_step(board, sanitized, copy_of):
    result = run_program(sanitized, board, "--self-test")
    assert f"{7 * 2 * 283} output values agree with the golden ones in every bit" in result.stdout
    damaged = copy_of(board)
    data = bytearray((damaged / "golden.bin").read_bytes())
    data[json.loads((damaged / "manifest.json").read_text())["golden"][6]["outputs"][0]["offset"]] ^= 1
    (damaged / "golden.bin").write_bytes(data)
    result = run_program(sanitized, damaged, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert f"1 of {7 * 2 * 283} output values differ" in result.stderr


def test_text_and_json_tell_why_a_text_ended(board, host, ids):
    path = ids([5, 80], [9])
    expected = host.generate([[5, 80], [9]], max_new_tokens=5, ignore_end=True).results()
    result = run_program(board / "edgeq-run", board, "--ids", path, "--generate", 5, "--ignore-end")
    assert result.stdout == "".join(" ".join(map(str, r.ids)) + "\n" for r in expected)
    assert "line 2: 5 tokens (length), " in result.stderr
    result = run_program(board / "edgeq-run", board, "--ids", path, "--generate", 200, "--ignore-end", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["line"], line["finish"], len(line["ids"])) for line in lines] == [
        (1, "context", 149),
        (2, "context", 150),
    ]
    assert [line["prompt_tokens"] for line in lines] == [2, 1]
    assert all(line["tokens_per_second"] > 0 for line in lines)


def test_sets_of_tensors_go_on_where_the_last_ended(board, host):
    ids = [(11 * i) % 283 for i in range(30)]
    sets = [
        {"input_ids": [ids[:10], ids[5:15]], "new_lengths": [10, 7]},
        {"input_ids": [ids[10:12], ids[12:14]], "past_lengths": [10, 7], "new_lengths": [2, 1]},
        {"input_ids": [ids], "new_lengths": [30]},
    ]
    state = host.new_state(2)
    expected = [host.run(given, state=state) for given in sets[:2]] + [host.run(sets[2])]
    for found, wanted in zip(emulator.run_many(board, sets), expected, strict=True):
        np.testing.assert_array_equal(found["logits"], wanted["logits"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the bundle generates text: give --generate N"),
        (["--generate", "0"], "--generate takes a number in 1.."),
        (["--generate", "3", "--repeat", "3"], "--generate goes with neither --repeat nor --raw"),
        (["--generate", "3", "--temperature", "-1"], "temperature must be a number"),
        (["--generate", "3", "--temperature", "nan"], "--temperature takes a number, found 'nan'"),
        (["--generate", "3", "--temperature", "warm"], "--temperature takes a number, found 'warm'"),
        (["--generate", "3", "--top-k", "5"], "top_k has no effect at temperature 0"),
        (["--generate", "3", "--top-p", "0.5"], "top_p has no effect at temperature 0"),
        (["--generate", "3", "--temperature", "1", "--top-p", "0"], "top_p must be a number above 0"),
        (["--generate", "3", "--temperature", "1", "--top-k", "-5"], "--top-k takes a number in 0.."),
        (["--generate", "3", "--repetition-penalty", "0"], "repetition_penalty must be a number"),
        (["--generate", "3", "--seed", "-1"], "--seed takes a number in 0.."),
        (["--seed", "5"], "need --generate"),
    ],
)
def test_wrong_options_are_a_sentence(board, sanitized, ids, options, message):
    result = run_program(sanitized, board, "--ids", ids([5]), *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([[5], [283]], "line 2 of the ids holds 283; ids lie in 0..282"),
        ([[5], [3] * 151], "line 2 of the ids has 151 tokens, the model takes at most 150"),
        ([[5], []], "line 2 is empty"),
    ],
)
def test_wrong_prompts_are_refused_before_anything_runs(board, sanitized, ids, lines, message):
    result = run_program(sanitized, board, "--ids", ids(*lines), "--generate", 3)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_bundle_that_makes_no_text_is_refused(make_bundle, ids):
    encoder = make_bundle(NATIVE)
    result = run_program(encoder / "edgeq-run", encoder, "--ids", ids([2]), "--generate", 3)
    assert result.returncode == 2
    assert "the bundle generates no text: it is for 'embed'" in result.stderr


def _set(tokens, past, new):
    ids = struct.pack(f"<I2q{len(tokens)}q", 2, 1, len(tokens), *tokens)
    return b"EQT1" + struct.pack("<I", 1) + ids + struct.pack("<Iqq", 1, 1, past) + struct.pack("<Iqq", 1, 1, new)


@pytest.mark.parametrize(
    ("tokens", "past", "new", "message"),
    [
        ([1, 2], 0, 3, "'new_lengths' holds 3, but a row of 'input_ids' has 2 tokens"),
        ([1, 2], 149, 2, "2 tokens after 149 do not fit the bundle's context of 150"),
        ([1, 2], -1, 2, "holds -1"),
        ([1, 2], 1 << 62, 2, "values lie in 0..150"),
        ([283], 0, 1, "holds 283"),
    ],
)
def test_lengths_are_checked(board, sanitized, tmp_path, tokens, past, new, message):
    (tmp_path / "in").write_bytes(_set(tokens, past, new))
    result = run_program(sanitized, board, "--tensors", tmp_path / "in", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


WRONG = [
    (("generation", "context"), 0, "context"),
    (("generation", "context"), 149, "'max_length' must be the context"),
    (("generation", "end_ids"), [283], "'end_ids' must be token ids"),
    (("generation", "end_ids"), ["x"], "'end_ids' must be token ids"),
    (("functions", "main", "state"), [], "a dimension that no input and no cache has"),
    (("functions", "main", "state", 0, "dtype"), "int32", "must be floats or int8"),
    (("functions", "main", "state", 0, "shape", 0), 1, "must be floats or int8 [batch, heads, context, ...]"),
    (("functions", "main", "state", 0, "shape", 2), "sequence", "must be floats or int8 [batch, heads, context, ...]"),
    (("functions", "main", "state", 1, "shape", 1), 1 << 39, "is not possible"),
    (("functions", "main", "inputs", 0, "maximum"), 283, "ids of a decoder must lie in 0..282"),
    (("functions", "main", "inputs", 1, "name"), "past", "the inputs of a decoder are"),
    (("functions", "main", "outputs", 0, "shape", 0), 1, "one row of float32 logits"),
    (("model", "task"), "embed", "do not belong together"),
    (("golden",), 3, "'golden' must be a list"),
    (("golden", 1, "inputs", 0, "offset"), 1 << 40, "lies outside its file"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_manifest_that_does_not_fit_a_decoder_is_refused(board, copy_of, sanitized, path, value, message):
    odd = with_value(copy_of(board), path, value)
    result = run_program(sanitized, odd, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_hostile_manifests_of_decoders_never_crash(board, copy_of, sanitized, json_numbers):
    """Random values with a valid digest: a sentence, or a run within its memory."""
    hostile = copy_of(board)
    original = (hostile / "manifest.json").read_bytes()
    chance = random.Random(12)  # noqa: S311
    values = b'-1 0 1 16 151 1024 9223372036854775807 1e3 null "batch" [] {}'.split()
    numbers = json_numbers(original, original.index(b'"golden"'))
    refused = 0
    for _ in range(60):
        data = bytearray(original)
        at, end = chance.choice(numbers)
        data[at:end] = chance.choice(values)
        write_table(hostile, bytes(data))
        result = run_program(sanitized, hostile, "--self-test", "--no-verify")
        refused += result.returncode != 0
    assert refused > 20
