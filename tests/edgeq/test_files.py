import os
from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.files import check_new_folder, new_folder, sha256, write_text


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["a"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_interrupted_write_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("old")

    def interrupted() -> None:
        with new_folder(out) as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (out / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_complete_write_replaces_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with new_folder(out) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in out.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"), new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(UsageError, match=r"out is a file; give the name of a folder to write, found .*out/a/b"):
        check_new_folder(tmp_path / "out" / "a" / "b")


def test_what_may_not_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked of the system rather than tried with a closed folder, for the superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda folder, _mode: folder != tmp_path)
    (tmp_path / "open").mkdir()
    check_new_folder(tmp_path / "open" / "out")
    for closed in (tmp_path / "out", tmp_path / "open"):
        with pytest.raises(UsageError, match=f"{tmp_path} cannot be written; give another folder than {closed}"):
            check_new_folder(closed)


def test_text_is_written_as_utf8_in_one_step(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "naïve\n")
    assert (tmp_path / "t").read_bytes() == "naïve\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
