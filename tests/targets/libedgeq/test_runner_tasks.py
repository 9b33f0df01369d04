"""``edgeq-run`` and ``edgeq run`` take the same options for texts and print the same JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import edgeq.cli.main as cli
from tests.targets.libedgeq.program import run_program
from tests.targets.runtime.test_tasks import SENTENCES, WORDS, made

__all__ = ["made"]

LINES = "the river rose\n\nJane Doe of New York's [MASK] bank left (Paris)\n  \nМосква 東京 café [MASK]\u0301 [MASK]\n"
PAIRS = "the river rose\tit left\nwho came?\tKarl-Heinz Müller came, and Jane left.\n"
ROWS = [
    {"id": 7, "text": "caf\u00e9 \U0001f600 \"quoted\" \\ \t[MASK]", "topic": {"a": [1, None, True]}, "n": 1.5},
    {"text": None, "id": "b"},
    {"question": "who left?", "context": "Jane Doe left Paris.", "more": ""},
]
TABLE = 'id,text,other\n1,"the ""river"" rose, [MASK]",b\n2,"two\nlines [MASK]",\n'


@pytest.fixture
def both(sanitized: Path, capfd: Any, tmp_path: Path) -> Any:
    """Returns a function that runs both programs and gives their lines, codes and what they say."""

    def run(bundle: Any, *options: Any, stdin: str = "") -> list[tuple[int, list[Any], str]]:
        command = [str(sanitized), str(bundle.path), "--no-verify", "--json", *map(str, options)]
        # The process exits without freeing; leaks are not what is looked for.
        env = {"ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=stdin, env=env)
        found = [(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)]
        capfd.readouterr()
        code = cli.main(["run", str(bundle.path), *map(str, options)])
        out, err = capfd.readouterr()
        return [*found, (code, [json.loads(line) for line in out.splitlines()], err)]

    return run


def _assert_same(found: Any, expected: Any) -> None:
    """Equal but for the last digits of numbers that are no integers."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert list(found) == list(expected)
        for key in found:
            _assert_same(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-6)
    else:
        assert found == expected


CASES = [
    ("classify", ["--text", "the river"], {}),
    ("classify", ["--file", "lines"], {}),
    ("classify", ["--pair", "the river rose", "it left"], {}),
    ("classify", ["--pairs", "pairs"], {}),
    ("classify", ["--csv", "table"], {}),
    ("classify", ["--file", "long", "--on-long", "cut"], {"truncated": True}),
    ("classify", ["--file", "long", "--on-long", "split", "--max-tokens", 20], {"rows": 6}),
    ("classify", ["--query", "the river", "--documents", "lines"], {}),
    ("classify", ["--query", "the river", "--documents", "lines", "--top-k", 1], {}),
    ("tag", ["--file", "lines"], {}),
    ("tag", ["--text", SENTENCES, "--aggregation", "none", "--on-long", "split", "--overlap", 4], {}),
    ("tag", ["--text", "Jane Doe left", "--aggregation", "max", "--ignore-labels", "PER,LOC"], {}),
    ("answer", ["--question", "who left?", "--context", "Jane Doe left.", "--top-k", 3, "--allow-no-answer"], {}),
    ("answer", ["--question", "who left?", "--context", SENTENCES, "--max-answer-tokens", 3], {}),
    ("answer", ["--pairs", "pairs"], {}),
    ("fill", ["--text", "the [MASK] rose", "--top-k", 2], {}),
    ("fill", ["--csv", "table", "--targets", "river,left"], {}),
]


@pytest.mark.parametrize(("task", "options", "has"), CASES)
def test_both_programs_print_the_same(made: Any, both: Any, tmp_path: Path, task: str, options: Any, has: Any) -> None:
    files = {"lines": LINES, "pairs": PAIRS, "table": TABLE, "long": " ".join(WORDS) + "\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    given = [tmp_path / option if option in files else option for option in options]
    (code, lines, err), (other_code, others, other_err) = both(made(task, "bert"), *given)
    assert (code, other_code) == (0, 0), err + other_err
    assert lines
    _assert_same(lines, others)
    assert has.items() <= lines[0].items()
    assert bool(other_err) == has.get("truncated", False)


@pytest.mark.parametrize("task", ["classify", "answer"])
def test_json_lines_come_back_with_their_ids_and_fields(made: Any, both: Any, tmp_path: Path, task: str) -> None:
    rows = ROWS[:2] if task == "classify" else ROWS[2:]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    (code, lines, err), (_, others, _) = both(made(task, "bert"), "--jsonl", path)
    assert (code, err) == (0, "")
    _assert_same(lines, others)
    if task == "classify":
        assert [line["id"] for line in lines] == [7, "b"]
        assert lines[0]["fields"] == {"topic": {"a": [1, None, True]}, "n": 1.5}
        assert lines[1] == {"id": "b", "text": "", "tokens": 0}
    else:
        assert lines[0]["fields"] == {"more": ""}
        assert (lines[0]["question"], lines[0]["context"]) == ("who left?", "Jane Doe left Paris.")


@pytest.mark.parametrize(("name", "gap"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_blank_lines_of_tables(made: Any, both: Any, tmp_path: Path, name: str, gap: str) -> None:
    """Where a row is a text alone, a blank line is one and keeps its place; elsewhere it is no row."""
    path = tmp_path / name
    path.write_text("text\nthe river\n\nit left\n", encoding="utf-8")
    (code, lines, err), (_, others, _) = both(made("classify", "bert"), "--csv", path)
    assert (code, err) == (0, "")
    _assert_same(lines, others)
    assert [line["text"] for line in lines] == ["the river", "", "it left"]
    path.write_text(f"id{gap}text\n1{gap}the river\n\n2{gap}it left\n\n", encoding="utf-8")
    (code, lines, err), (_, others, _) = both(made("classify", "bert"), "--csv", path)
    assert (code, err) == (0, "")
    _assert_same(lines, others)
    assert [line["id"] for line in lines] == ["1", "2"]


def test_two_columns_of_one_name_are_a_sentence(made: Any, both: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,id,text\na,1,b\n", encoding="utf-8")
    for code, _, err in both(made("classify", "bert"), "--csv", path):
        assert code == 1
        assert "rows.csv has two columns 'text'; keep one of them" in err


def test_standard_input(made: Any, sanitized: Path, tmp_path: Path) -> None:
    bundle = made("classify", "bert").path
    (tmp_path / "lines").write_text(LINES, encoding="utf-8")
    command = [str(sanitized), str(bundle), "--no-verify", "--json", "--file"]
    env = {"ASAN_OPTIONS": "detect_leaks=0"}
    piped = subprocess.run([*command, "-"], capture_output=True, check=True, input=LINES.encode(), env=env)
    read = subprocess.run([*command, str(tmp_path / "lines")], capture_output=True, check=True, env=env)
    assert piped.stdout == read.stdout
    assert len(piped.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"', "line 1: expected '}'"),
        ('{"text": "a"} x', "line 1: expected nothing after the object"),
        ('\n["a"]', "line 2: expected a JSON object"),
        ('{"text": "\\ud800"}', "line 1: expected the second half of a surrogate pair"),
        ('{"text": "a\\q"}', "line 1: expected a known sign after a backslash"),
        ('{"text": 3}', "line 1: expected a text, or null"),
        ('{"text": "a", "text": "b"}', "line 1: expected each key once"),
        ('{"text": "a", "sentence": "b"}', "line 1: name the texts by --column"),
        ('{"words": "a"}', "line 1: name the texts by --column"),
        ('{"text": "a", "k": tru}', "line 1: expected a value"),
        ("[" * 70, "line 1: expected a JSON object"),
        ('{"text": "a", "k": ' + "[" * 70, "at most 64 lists or objects"),
        ("\n \n", "holds no texts"),
    ],
)
def test_damaged_json_lines_are_a_sentence(
    made: Any, sanitized: Path, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    command = [str(sanitized), str(made("classify", "bert").path), "--no-verify", "--jsonl", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"}
    )
    assert done.returncode in (1, 2), done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query", "a"], "--query and --documents belong together"),
        (["--question", "a"], "--question and --context belong together"),
        (["--text", "a", "--column", "b"], "--column belongs to --jsonl and --csv"),
        (["--text", "a", "--on-long", "maybe"], "--on-long takes error, cut or split, found 'maybe'"),
        (["--text", "a", "--aggregation", "mean"], "--aggregation takes none, simple, first, average or max"),
        (["--pair", "a"], "--pair needs two values"),
        (["--text", "a", "--targets", ","], "--targets names no token"),
        (["--text", "a", "--prompt-name", "q"], "the bundle has no prompt 'q'; its prompts are: none"),
        (["--text", SENTENCES], "line 1 of the texts has"),
    ],
)
def test_wrong_options_are_a_sentence(made: Any, sanitized: Path, options: list[str], message: str) -> None:
    command = [str(sanitized), str(made("classify", "bert").path), "--no-verify", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"}
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "options", "refused"),
    [
        ("classify", ["--text", "a", "--top-k", 3], "--top-k"),
        ("classify", ["--text", "a", "--targets", "b"], "--targets"),
        ("classify", ["--text", "a", "--overlap", 2, "--max-answer-tokens", 15], "--max-answer-tokens"),
        ("classify", ["--query", "a", "--documents", "lines", "--ignore-labels", "O"], "--ignore-labels"),
        ("tag", ["--text", "a", "--top-k", 3], "--top-k"),
        ("tag", ["--text", "a", "--allow-no-answer"], "--allow-no-answer"),
        ("answer", ["--pair", "a", "b", "--aggregation", "max"], "--aggregation"),
        ("fill", ["--text", "[MASK]", "--allow-no-answer"], "--allow-no-answer"),
    ],
)
def test_options_of_another_task_are_refused(
    made: Any, both: Any, tmp_path: Path, task: str, options: list[Any], refused: str
) -> None:
    (tmp_path / "lines").write_text("a\n", encoding="utf-8")
    given = [tmp_path / option if option == "lines" else option for option in options]
    for code, lines, err in both(made(task, "bert"), *given):
        assert (code, lines) == (2, [])
        assert refused in err
        assert "does not apply" in err
        assert err.endswith("leave it out\n")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "a", "--raw", "--on-long", "cut"], "--on-long does not apply with --raw"),
        (["--text", "a", "--repeat", "2", "--prompt-name", "q"], "--prompt-name does not apply with --repeat"),
        (["--text", "a", "--tokens", "--top-k", "2"], "--top-k does not apply with --tokens"),
        (["--query", "a", "--documents", "-", "--raw"], "--query does not apply with --raw"),
        (["--self-test", "--max-tokens", "5"], "--max-tokens does not apply with --self-test"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    made: Any, sanitized: Path, options: list[str], message: str
) -> None:
    done = run_program(sanitized, made("classify", "bert").path, "--no-verify", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"edgeq-run: {message}; leave it out\n"
