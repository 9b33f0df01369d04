import io
import json
import shutil

import pytest

import edgeq
import edgeq.cli.main as cli
from edgeq.targets.runtime.generation import Generation


@pytest.fixture
def run(capsys):
    """Returns a function that runs `edgeq generate` and returns exit code, stdout and stderr."""

    def call(*arguments):
        code = cli.main(["generate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def expected(gpt2_bundle):
    """What the library gives for two prompts."""
    bundle = edgeq.load(gpt2_bundle)
    return bundle.generate(["the cat sat", "a lazy dog"], max_new_tokens=12, ignore_end=True).results()


def test_a_prompt_is_continued_and_the_speed_told(run, gpt2_bundle, expected):
    code, out, err = run(gpt2_bundle, "--prompt", "the cat sat", "-n", 12, "--ignore-end")
    assert (code, out) == (0, f"the cat sat{expected[0].text}\n")
    assert err.startswith("12 tokens, ")
    assert "tokens a second" in err
    assert len(err.splitlines()) == 1


def test_json_is_one_object(run, gpt2_bundle, expected):
    code, out, err = run(gpt2_bundle, "--prompt", "the cat sat", "-n", 12, "--ignore-end", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["prompt"], found["text"], found["ids"]) == ("the cat sat", expected[0].text, expected[0].ids)
    assert (found["finish"], found["prompt_tokens"]) == ("length", expected[0].prompt_tokens)
    assert found["tokens_per_second"] > 0


def test_prompts_come_from_a_file_too(run, gpt2_bundle, expected, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\na lazy dog\n")
    arguments = (gpt2_bundle, "--prompt", "the cat sat", "--prompts-file", file, "-n", 12, "--ignore-end")
    code, out, _ = run(*arguments, "--batch", 1)
    assert (code, out) == (0, "".join(f"{result.prompt}{result.text}\n\n" for result in expected))
    code, out, _ = run(*arguments, "--json")
    assert [result["ids"] for result in json.loads(out)["results"]] == [result.ids for result in expected]


def test_options_reach_the_sampler(run, gpt2_bundle):
    options = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.9", "--repetition-penalty", "1.2", "--ignore-end"]
    ids = []
    for seed in (1, 1, 2):
        code, out, _ = run(gpt2_bundle, "--prompt", "the cat", "-n", 20, *options, "--seed", seed, "--json")
        assert code == 0
        ids.append(json.loads(out)["ids"])
    assert ids[0] == ids[1] != ids[2]


def test_a_full_context_and_a_stop_text_are_told(run, gpt2_bundle, expected):
    code, _, err = run(gpt2_bundle, "--prompt", "the cat sat", "-n", 500, "--ignore-end")
    assert code == 0
    assert "fewer tokens than asked for: the context is full" in err
    stop = expected[0].text[-2:]
    code, out, err = run(gpt2_bundle, "--prompt", "the cat sat", "-n", 500, "--ignore-end", "--stop", stop)
    assert (code, out) == (0, "the cat sat" + expected[0].text[: expected[0].text.index(stop)] + "\n")
    assert "a stop text was generated" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt"),
        (["-p", ""], "prompt 1 is empty"),
        (["-p", "cat " * 200], "the model takes at most 150"),
        (["-p", "a", "-n", "0"], "max_new_tokens must be an integer of at least 1"),
        (["-p", "a", "-n", "many"], "valid integer"),
        (["-p", "a", "--temperature", "-1"], "temperature must be a number"),
        (["-p", "a", "--temperature", "nan"], "temperature must be a number"),
        (["-p", "a", "--top-p", "2", "--temperature", "1"], "top_p must be"),
        (["-p", "a", "--top-k", "5"], "top_k has no effect at temperature 0"),
        (["-p", "a", "--seed", "-1"], "seed must be"),
        (["-p", "a", "--stop", ""], "stop must be"),
        (["-p", "a", "--beams", "3"], "No such option"),
        (["--prompts-file", "/no/such/file"], "/no/such/file does not exist"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_2(run, gpt2_bundle, arguments, message):
    code, out, err = run(gpt2_bundle, *arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1, err
    assert message in err


def test_a_damaged_bundle_and_a_bundle_that_makes_no_text_are_refused(run, gpt2_bundle, deployed, tmp_path):
    code, out, err = run(deployed.folder / "bundles" / "host", "--prompt", "the cat")
    assert (code, out) == (2, "")
    assert "generates no text: BertModel is for 'embed'; run it with `edgeq run`" in err
    damaged = shutil.copytree(gpt2_bundle, tmp_path / "damaged")
    data = bytearray((damaged / "weights.bin").read_bytes())
    data[100] ^= 1
    (damaged / "weights.bin").write_bytes(data)
    code, out, err = run(damaged, "--prompt", "the cat")
    assert (code, out) == (1, "")
    assert "weights.bin is damaged" in err


def test_text_is_written_while_it_is_made(gpt2_bundle, monkeypatch):
    """What is flushed after each token is the text so far."""
    made, shown = [], []
    next_piece = Generation.__next__

    class Out(io.StringIO):
        def flush(self):
            shown.append(self.getvalue())

    def record(generation):
        piece = next_piece(generation)
        made.append(piece.text)
        return piece

    monkeypatch.setattr(Generation, "__next__", record)
    monkeypatch.setattr("sys.stdout", Out())
    assert cli.main(["generate", str(gpt2_bundle), "-p", "the cat", "-n", "30", "--ignore-end"]) == 0
    assert len(made) == 30
    assert shown[:31] == ["the cat" + "".join(made[:count]) for count in range(31)]
