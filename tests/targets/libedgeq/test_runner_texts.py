"""``edgeq-run --text`` and ``--file``: texts in, embeddings and texts out, as Python makes them."""

import json
import subprocess

import numpy as np
import pytest
import tokenizers

import edgeq
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.text import run_texts

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
TEXTS = ["w1 w5", "W2 unknown w18", "w0"]


def _run(program, *arguments):
    # The process exits without freeing; leaks are not what is looked for.
    result = subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, timeout=120, check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    message = result.stderr.decode()
    assert "Sanitizer" not in message, message
    assert "runtime error" not in message, message
    return result.returncode, result.stdout.decode(), message


@pytest.fixture
def board(make_bundle):
    return make_bundle(NATIVE)


def _write(tmp_path, data):
    path = tmp_path / "texts.txt"
    path.write_bytes(data)
    return path


def test_texts_give_the_embeddings_of_python(board, host_bundle, tmp_path):
    path = _write(tmp_path, "\ufeff{}\r\n\n  \n{}\n{}".format(*TEXTS).encode())
    code, out, message = _run(board / "edgeq-run", board, "--file", path, "--json")
    assert (code, message) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    expected = list(run_texts(edgeq.load(host_bundle), TEXTS))
    assert [line["text"] for line in lines] == [TEXTS[0], "", "", *TEXTS[1:]]
    assert lines[1] == {"text": "", "tokens": 0}
    found = [line for line in lines if line["text"]]
    for line, result in zip(found, expected, strict=True):
        assert line["tokens"] == result.tokens
        np.testing.assert_allclose(np.float32(line["embedding"]), result.embedding, rtol=3e-7, atol=1e-9)
    alone = json.loads(_run(board / "edgeq-run", board, "--text", TEXTS[1], "--json")[1])
    assert alone["embedding"] == found[1]["embedding"]


def test_tokens_are_printed(board):
    code, out, _ = _run(board / "edgeq-run", board, "--text", "w1 w5", "--tokens")
    assert (code, out) == (0, "2 5 9 3\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", " "], "the text is empty"),
        (["--text", "w1", "--ids", "x"], "give one of"),
        (["--text", b"w1 \xff"], "line 1 of the texts is not UTF-8: it holds byte 0xff"),
        (["--file", b"w1\nw\xed\xa0\x80\n"], "line 2 of the texts is not UTF-8: it holds byte 0xed"),
        (["--file", b"w\0"], "it holds byte 0x00"),
        (["--file", b"\n \n"], "holds no text"),
        (["--file", b"w1\n" + b"w1 " * 39], "line 2 of the texts has 41 tokens, the model takes at most 40"),
        (["--tokens"], "give one of"),
        (["--ids", "x", "--tokens"], "--tokens goes with texts alone"),
    ],
)
def test_wrong_texts_are_a_sentence_and_code_2(board, sanitized, tmp_path, arguments, message):
    given = [_write(tmp_path, value) if isinstance(value, bytes) and arguments[0] == "--file" else value
             for value in arguments]  # fmt: skip
    given = [value if isinstance(value, bytes) else str(value).encode() for value in given]
    result = subprocess.run(
        [bytes(sanitized), bytes(board), *given], capture_output=True, check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    assert result.returncode == 2
    assert message in result.stderr.decode()
    assert len(result.stderr.decode().splitlines()) == 1


@pytest.mark.slow
def test_made_texts_are_those_of_the_library(gpt2_board, gpt2_bundle, sanitized, tmp_path):
    """A random model makes bytes that are no characters, too."""
    bundle = gpt2_board(NATIVE)
    prompts = ["the cat sat", "caf\u00e9 \u6c49 x", "a"]
    options = ["--generate", "60", "--temperature", "1", "--seed", "3", "--ignore-end"]
    path = _write(tmp_path, "\n".join(prompts).encode())
    code, out, message = _run(sanitized, bundle, "--file", path, *options, "--json")
    assert code == 0, message
    tokenizer = tokenizers.Tokenizer.from_file(str(gpt2_bundle / "tokenizer.json"))
    sampling = Sampling(temperature=1.0, seed=3)
    host = edgeq.load(gpt2_bundle)
    expected = host.generate(prompts, max_new_tokens=60, sampling=sampling, ignore_end=True).results()
    for line, result in zip(map(json.loads, out.splitlines()), expected, strict=True):
        assert line["ids"] == result.ids
        assert line["text"] == tokenizer.decode(result.ids, skip_special_tokens=True)
    code, plain, _ = _run(sanitized, bundle, "--text", prompts[0], *options)
    assert plain == json.loads(out.splitlines()[0])["text"] + "\n"
