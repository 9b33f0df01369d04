"""The command line: exit codes, one sentence a mistake, JSON for machines, help with examples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq
import edgeq.cli.main as cli
from edgeq.cli.groups import GROUPS
from edgeq.cli.verb import app

VERBS = [command.name for command in app.registered_commands]


def run(capsys, *arguments):
    """Runs the command line in this process; returns exit code, stdout and stderr."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_one_sentence(err, *words):
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_the_verbs_of_the_design_exist():
    stages = {"compress", "export", "compile", "parity", "diff", "size", "profile", "report"}
    assert {"deploy", "run", "generate", "verify", "recipes", "targets", "doctor"} | stages <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_json_and_debug(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"edgeq {verb}" in out
    assert "Example" in out
    assert "--json" in out
    assert "--debug" in out


def test_no_arguments_show_the_help_and_count_as_wrong_usage(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert "deploy" in out


def test_the_help_is_grouped_by_what_one_wants_to_do(capsys):
    assert {verb for verbs in GROUPS.values() for verb in verbs} >= set(VERBS), "a verb is in no group"
    code, out, _ = run(capsys, "--help")
    assert code == 0
    places = [out.index(f"─ {group} ─") for group in GROUPS]
    assert places == sorted(places)
    assert "Others" not in out
    assert "edgeq deploy ./my-bert ./run --recipe ptq-w8a8 --target host" in out


def test_every_verb_has_a_file_of_its_name():
    folder = Path(cli.__file__).parent
    registering = {path.stem for path in folder.glob("*.py") if "\n@verb(" in path.read_text()}
    assert registering == {verb.replace("-", "_") for verb in VERBS}


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"edgeq {edgeq.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["compress"],
        ["compress", "a", "b"],
        ["size", "a", "--nonsense"],
        ["profile", "a", "--rounds", "many"],
        ["profile", "a", "--rounds", "0"],
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert_one_sentence(err, "edgeq", "--help")


def test_a_missing_path_is_one_sentence_and_exit_2(capsys, tmp_path):
    for verb in ("size", "report", "parity", "diff", "profile", "verify"):
        code, out, err = run(capsys, verb, tmp_path / "nowhere")
        assert (verb, code) == (verb, 2)
        assert out == ""
        assert_one_sentence(err, "nowhere")
    for verb, option in (
        ("compress", "--recipe=ptq-w8a8"),
        ("export", "--opset=20"),
        ("compile", "--target=host"),
    ):
        code, out, err = run(capsys, verb, tmp_path / "nowhere", tmp_path / "out", option)
        assert (verb, code) == (verb, 2)
        assert_one_sentence(err, "nowhere")
        assert not (tmp_path / "out").exists()


def test_unknown_names_get_the_nearest_known_one(capsys, tmp_path):
    (tmp_path / "source").mkdir()
    code, _, err = run(capsys, "compress", tmp_path / "source", tmp_path / "out", "--recipe", "ptq-w8a9")
    assert code == 2
    assert_one_sentence(err, "did you mean 'ptq-w8a8'")
    code, _, err = run(capsys, "compile", tmp_path / "source", tmp_path / "out", "--target", "cortex-a75")
    assert code == 2
    assert_one_sentence(err, "did you mean 'cortex-a7")
    assert not (tmp_path / "out").exists()


def test_recipes_and_targets_are_listed_with_meanings(capsys):
    for verb, name in (("recipes", "ptq-w8a8"), ("targets", "cortex-a76")):
        code, out, _ = run(capsys, verb)
        assert code == 0
        assert name in out
        code, out, _ = run(capsys, verb, "--json")
        assert code == 0
        entries = json.loads(out)
        assert name in [entry["name"] for entry in entries]
        assert all(entry["summary"] for entry in entries)


def test_targets_say_what_they_are_and_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    entries = {entry["name"]: entry for entry in json.loads(run(capsys, "targets", "--json")[1])}
    core = entries["cortex-a76"]
    assert (core["triple"], core["features"]) == ("aarch64-linux-gnu", ["+neon", "+dotprod"])
    assert any("qemu-user-static" in missing for missing in core["missing"])
    assert entries["host"]["runs"] == "on this processor"


@pytest.mark.parametrize("verb", ["deploy", "search", "generate"])
def test_an_option_without_a_value_shows_no_type(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    lines = [line for line in out.splitlines() if "--json" in line or "--shapes" in line or "--ignore-end" in line]
    assert code == 0
    assert lines
    assert not any("<bool>" in line for line in lines)


def test_debug_shows_the_traceback_and_keeps_the_exit_code(capsys, tmp_path):
    code, _, err = run(capsys, "size", tmp_path / "nowhere", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("edgeq: ")


def test_an_internal_error_is_one_sentence_that_says_what_to_do(capsys, tmp_path, monkeypatch):
    def broken(path):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("edgeq.cli.size.ledger", broken)
    code, _, err = run(capsys, "size", tmp_path)
    assert code == 1
    assert_one_sentence(err, "internal error", "ZeroDivisionError", "--debug")


def test_operating_system_errors_name_the_file(capsys, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("edgeq.cli.size.ledger", full)
    code, _, err = run(capsys, "size", tmp_path)
    assert code == 1
    assert_one_sentence(err, str(tmp_path), "No space left")


def test_interruption_has_the_shells_exit_code(capsys, tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeq.cli.size.ledger", interrupted)
    code, _, err = run(capsys, "size", tmp_path)
    assert code == 130
    assert_one_sentence(err, "interrupted")


def test_the_installed_command_exits_with_the_code(tmp_path):
    script = "import sys; from edgeq.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "size", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert_one_sentence(done.stderr, "does not exist")


def test_a_closed_pipe_is_quiet(tmp_path):
    script = "import sys; from edgeq.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", script, "targets", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
