"""``edgeq-run``: the C program, on this machine's own architecture (emulated cores: test_emulator.py)."""

import json
import random
import shutil
import struct
import subprocess

import numpy as np
import pytest

import edgeq
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest
from tests.targets.changed_manifests import write_table

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture
def board(make_bundle):
    """The tiny model as it would be copied to a board of this machine's architecture."""
    return make_bundle(NATIVE)


def _run(program, *arguments, **options):
    return subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def _sanitized_run(program, *arguments):
    # The process exits without freeing; leaks are not what is looked for.
    result = _run(program, *arguments, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert "Sanitizer" not in result.stderr, result.stderr
    assert "runtime error" not in result.stderr, result.stderr
    assert result.returncode in (0, 1, 2), result
    return result


def _ids(tmp_path, text):
    path = tmp_path / "ids.txt"
    path.write_text(text)
    return path


def test_it_builds_without_a_warning(sanitized):
    """The fixture makes errors of warnings."""
    assert _run(sanitized, "--help").stdout.startswith("usage: edgeq-run BUNDLE")


def test_the_self_test_agrees_with_the_golden_output(board):
    result = _run(board / "edgeq-run", board, "--self-test")
    assert (result.returncode, result.stderr) == (0, "")
    assert "216 output values agree with the golden ones in every bit" in result.stdout
    as_json = _run(board / "edgeq-run", board, "--self-test", "--json", "--threads", "2")
    assert json.loads(as_json.stdout) == {"ok": True, "values": 216, "differing": 0}


def test_the_self_test_sees_one_changed_bit(board, copy_of):
    damaged = copy_of(board)
    offset = read_manifest(damaged).golden[0].outputs[0].offset
    data = bytearray((damaged / "golden.bin").read_bytes())
    data[offset + 40] ^= 1
    (damaged / "golden.bin").write_bytes(data)
    result = _run(damaged / "edgeq-run", damaged, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert "self-test failed: 1 of 216 output values differ" in result.stderr


def test_ids_give_the_embedding_that_python_gives(board, host_bundle, tmp_path):
    result = _run(board / "edgeq-run", board, "--ids", _ids(tmp_path, "2 5\t9 3\r\n2 3"), "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    bundle = edgeq.load(host_bundle)
    assert [(line["line"], line["tokens"]) for line in lines] == [(1, 4), (2, 2)]
    for line, ids in zip(lines, ([[2, 5, 9, 3]], [[2, 3]]), strict=True):
        mean = bundle(input_ids=np.array(ids))["last_hidden_state"][0].astype(np.float64).mean(axis=0)
        expected = mean / np.sqrt((mean * mean).sum())
        np.testing.assert_allclose(np.float32(line["embedding"]), expected, rtol=3e-7, atol=1e-9)


def test_raw_output_is_the_models_in_every_bit(board, host_bundle, tmp_path):
    result = _run(board / "edgeq-run", board, "--ids", _ids(tmp_path, "2 5 9 3\n"), "--json", "--raw")
    output = json.loads(result.stdout)["outputs"]["last_hidden_state"]
    expected = edgeq.load(host_bundle)(input_ids=np.array([[2, 5, 9, 3]]))["last_hidden_state"]
    found = np.float32(output["values"]).reshape(output["shape"])
    np.testing.assert_array_equal(found, expected)


def test_timing_is_printed_per_text(board, tmp_path):
    ids = _ids(tmp_path, "2 3\n2 5 3\n")
    result = _run(board / "edgeq-run", board, "--ids", ids, "--json", "--repeat", "20")
    timings = [json.loads(line) for line in result.stdout.splitlines() if "median_ms" in line]
    assert [timing["runs"] for timing in timings] == [20, 20]
    assert all(0 < timing["median_ms"] <= timing["p95_ms"] for timing in timings)
    plain = _run(board / "edgeq-run", board, "--ids", ids, "--repeat", "3")
    assert "line 2: 3 runs, median" in plain.stderr
    assert len(plain.stdout.splitlines()) == 2


def test_many_lengths_do_not_pile_up_memory(board, host_bundle, tmp_path):
    text = "".join(" ".join(["2"] * length) + "\n" for length in range(1, 41))
    result = _run(board / "edgeq-run", board, "--ids", _ids(tmp_path, text), "--json")
    assert [json.loads(line)["tokens"] for line in result.stdout.splitlines()] == list(range(1, 41))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 5 x\n", "line 1: token ids separated by spaces are expected, found byte 0x78"),
        ("2\n-1\n", "line 2: token ids separated by spaces are expected, found byte 0x2d"),
        ("2\n\n3\n", "line 2 is empty"),
        ("", "is empty"),
        ("2 23\n", "line 1 of the ids holds 23; ids lie in 0..22"),
        ("2\n" + "2 " * 41, "line 2 of the ids has 41 tokens, the model takes at most 40"),
        ("99999999999999999999\n", "line 1: a token id is too large"),
        ("2 \0 3\n", "found byte 0x00"),
    ],
)
def test_wrong_ids_are_refused_before_anything_runs(board, sanitized, tmp_path, text, message):
    ids = _ids(tmp_path, text)
    for result in (
        _run(board / "edgeq-run", board, "--ids", ids),
        _sanitized_run(sanitized, board, "--ids", ids),
    ):
        assert result.returncode == 2
        assert result.stdout == ""
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a bundle"),
        (["B"], "give one of --self-test, --text, --file, --pair"),
        (["B", "--self-test", "--ids", "x"], "give one of"),
        (["B", "--ids"], "--ids needs a value"),
        (["B", "--ids", "/no/such/file"], "cannot open /no/such/file"),
        (["B", "--tensors", "x"], "--tensors and --out belong together"),
        (["B", "--self-test", "--repeat", "3"], "--repeat needs texts, --ids or --profile"),
        (["B", "--self-test", "--threads", "0"], "--threads takes a number in 1..1024, found '0'"),
        (["B", "--self-test", "--threads", "2x"], "found '2x'"),
        (["B", "--fast"], "unexpected argument '--fast'"),
        (["/no/such/bundle", "--self-test"], "no bundle folder at /no/such/bundle"),
        (["/usr", "--self-test"], "cannot open /usr/manifest.json"),
    ],
)
def test_wrong_usage_is_a_sentence_and_code_2(board, arguments, message):
    result = _run(board / "edgeq-run", *[board if argument == "B" else argument for argument in arguments])
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["weights.bin", f"code/{NATIVE}.so", "golden.bin", "manifest.json", "lib/libedgeq.so"]
)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_files_are_named(board, copy_of, sanitized, name, damage):
    damaged = copy_of(board)
    path = damaged / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage != "missing":
        data[len(data) // 2] ^= 1
        path.write_bytes(data[:-1] if damage == "truncated" else data)
    options = ["--verify-all"] if name.startswith("lib/") else []  # the program does not use it
    result = _sanitized_run(sanitized, damaged, "--self-test", *options)
    assert result.returncode in (1, 2)
    assert path.name in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_hostile_manifests_never_reach_outside_a_file(board, copy_of, sanitized, json_numbers):
    """Random bytes and random values, with a valid digest: a sentence, never a crash."""
    hostile = copy_of(board)
    original = (hostile / "manifest.json").read_bytes()
    chance = random.Random(11)  # noqa: S311
    values = b'-1 0 1 64 9223372036854775807 1152921504606846976 1e3 null "x" [] {}'.split()
    numbers = json_numbers(original)
    refused = 0
    for _ in range(120):
        data = bytearray(original)
        if chance.random() < 0.5:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        else:
            at, end = chance.choice(numbers)
            data[at:end] = chance.choice(values)
        write_table(hostile, bytes(data))
        result = _sanitized_run(sanitized, hostile, "--self-test", "--no-verify")
        refused += result.returncode != 0
    assert refused > 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "edgeq-bundle", "format": 1}', "a key appears twice"),
        ("[" * 40, "nested too deeply"),
        ('{"format": "a\\ud800b"}', "half of a surrogate pair"),
        ('{"format": "a\x01b"}', "a byte that is not allowed"),
        ('{"format": 01}', "a value is expected"),
        ('{"format": 99999999999999999999}', "an integer is too large"),
        ('{"format": "edgeq-bundle"} x', "something follows"),
        ('{"format": "edgeq', "a text is not closed"),
        ('{"format": "zip"}', "not the manifest of a bundle"),
        ('{"format": "edgeq-bundle", "version": 7}', "is of format version 7, expected 2; compile the bundle again"),
        ('{"format": "edgeq-bundle", "format_version": 1}', "is of format version 1, expected 2; compile the bundle"),
        ("{}", "'format' is missing"),
        ("3", "an object with 'format' is expected"),
        ("", "a value is expected"),
    ],
)
def test_json_is_read_strictly(board, copy_of, sanitized, text, message):
    odd = copy_of(board)
    write_table(odd, text.encode())
    result = _sanitized_run(sanitized, odd, "--self-test")
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is cut off"),
        (b"EQT2" + struct.pack("<I", 1), "is no file of tensors"),
        (b"EQT1" + struct.pack("<I", 1), "is cut off"),
        (b"EQT1" + struct.pack("<II", 1, 9), "too many dimensions"),
        (b"EQT1" + struct.pack("<II2q", 1, 2, 1 << 60, 1 << 60), "is not possible"),
        (b"EQT1" + struct.pack("<II2q", 1, 2, 1000, 1000), "is cut off"),
        (b"EQT1" + struct.pack("<IIq", 0, 1, 1), "is longer than its sets"),
        (b"EQT1" + struct.pack("<II2qqI2qq", 1, 2, 1, 1, 99, 2, 1, 1, 1), "holds 99"),
        (b"EQT1" + struct.pack("<IIqqI2qq", 1, 1, 1, 3, 2, 1, 1, 1), "must have 2 dimensions, found 1"),
        (
            b"EQT1" + struct.pack("<II2qqI2q2q", 1, 2, 1, 1, 3, 2, 1, 2, 1, 1),
            "has size 2 where 1 is expected",
        ),
    ],
)
def test_wrong_tensor_files_are_refused_and_write_nothing(board, sanitized, tmp_path, data, message):
    (tmp_path / "in").write_bytes(data)
    result = _sanitized_run(sanitized, board, "--tensors", tmp_path / "in", "--out", tmp_path / "out")
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_it_runs_from_anywhere_and_by_any_name_of_the_folder(board, tmp_path):
    shutil.copytree(board, tmp_path / "moved here")
    result = _run("./edgeq-run", ".", "--self-test", cwd=tmp_path / "moved here")
    assert result.returncode == 0, result.stderr
