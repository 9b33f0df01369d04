import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError, FormatError, UsageError, printable
from edgeq.formats.json_file import parse_json, read_json, read_json_object
from edgeq.reading import check_regular, open_regular, read_text, sha256

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(JSON)
def test_what_json_can_say_is_read_as_python_reads_it(value: object) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only), where="it") == value


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_other_text_is_refused_by_name_or_read(text: str) -> None:
    said = "the file is damaged: "
    try:
        parse_json(text, where="the file")
    except FormatError as error:
        said = str(error)
    assert said.startswith("the file is damaged: ")
    assert said.isprintable()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ('{"a": {"\\u001b[2J": 1, "\\u001b[2J": 1}}', r"key '\\x1b\[2J' twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is too large"),
        ("[" + "9" * 5000 + "]", "an integer has 5000 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('["\\ud800"]', "half a surrogate pair"),
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FormatError, match=rf"config\.json is damaged: .*{reason}"):
        read_json(tmp_path / "config.json")


def test_numbers_of_real_files_are_read() -> None:
    assert parse_json("[1000000000000000019884624838656, 1e-12, \"\\ud83d\\ude00\"]", where="") == [
        1000000000000000019884624838656, 1e-12, "\U0001f600",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe", "link to nothing"])
def test_nothing_but_a_file_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    else:
        path.symlink_to(tmp_path / "nowhere")
    expected = UsageError if kind == "link to nothing" else FormatError
    for read in (read_json, sha256, open_regular):
        with pytest.raises(expected, match=r"config\.json"):
            read(path)
    if kind != "link to nothing":
        with pytest.raises(FormatError, match=r"config\.json"):
            check_regular([tmp_path / "not there", path])


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    assert read_json_object(tmp_path / "config.json") == {"a": 1}


def test_a_huge_file_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(FormatError, match=r"config\.json should have 268435456 bytes at most, found 1099511627776"):
        read_json(tmp_path / "config.json")


def test_other_tops_and_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(FormatError, match="should hold a JSON object, found a list"):
        read_json_object(tmp_path / "list.json")
    (tmp_path / "latin.json").write_bytes('{\n"a": "café"}'.encode("latin-1"))
    with pytest.raises(FormatError, match="not UTF-8 text: line 2 holds byte 0xe9"):
        read_text(tmp_path / "latin.json")


@given(st.text())
def test_messages_hold_nothing_that_a_terminal_obeys(text: str) -> None:
    assert str(EdgeqError(f"{text} is wrong")).isprintable()
    assert printable(printable(text)) == printable(text)


def test_letters_of_all_scripts_stay_in_messages() -> None:
    text = "naïve Ελληνικά हिन्दी 日本語 עברית 😀"
    assert printable(text) == text
    assert printable("\x1b[2J\u202e\n\x9b") == r"\x1b[2J\u202e\n\x9b"
