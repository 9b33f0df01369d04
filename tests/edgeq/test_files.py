import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq import files
from edgeq.errors import UsageError
from edgeq.files import MARKER, Output, check_new_file, check_new_folder, made_of, new_folder, write_text
from edgeq.reading import sha256

OUTPUT = Output("compress")


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out, OUTPUT) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "a"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_interrupted_write_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out, OUTPUT) as folder:
        (folder / "a").write_text("old")

    def interrupted() -> None:
        with new_folder(out, OUTPUT) as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (out / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_complete_write_replaces_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with new_folder(out, OUTPUT) as folder:
            (folder / name).write_text(name)
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "second"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"), new_folder(tmp_path / "out", OUTPUT):
        pass
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(UsageError, match=r"out is a file; give the name of a folder to write, found .*out/a/b"):
        check_new_folder(tmp_path / "out" / "a" / "b", OUTPUT)


def test_what_may_not_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked of the system rather than tried with a closed folder, for the superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda folder, _mode: folder != tmp_path)
    (tmp_path / "open").mkdir()
    check_new_folder(tmp_path / "open" / "out", OUTPUT)
    for closed in (tmp_path / "out", tmp_path / "open"):
        with pytest.raises(UsageError, match=f"{tmp_path} cannot be written; give another folder than {closed}"):
            check_new_folder(closed, OUTPUT)


def test_text_is_written_as_utf8_in_one_step(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "naïve\n")
    assert (tmp_path / "t").read_bytes() == "naïve\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _write(out: Path, output: Output = OUTPUT, *, name: str = "weights", force: bool = False) -> None:
    with new_folder(out, output, force=force) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / name).write_text("edgeq's")


def _everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("place", ["thesis.txt", ".hidden", "deep/thesis.txt", "own/thesis.txt"])
@pytest.mark.parametrize("before", ["nothing", "output of compress", "output of export"])
def test_what_edgeq_did_not_write_is_never_erased(tmp_path: Path, place: str, before: str) -> None:
    out = tmp_path / "out"
    if before != "nothing":
        _write(out, Output(before.split()[-1]))
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    (out / place).write_text("mine")
    found = _everything(out)
    with pytest.raises(UsageError, match=r"was not written by 'edgeq compress'.*--force"):
        _write(out)
    assert _everything(out) == found
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    _write(out, force=True)
    assert set(_everything(out)) == {MARKER, "deep/weights"}


def test_a_link_in_an_output_counts_as_something_of_others(tmp_path: Path) -> None:
    _write(tmp_path / "out")
    (tmp_path / "home").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "home", target_is_directory=True)
    with pytest.raises(UsageError, match="link was not written by"):
        _write(tmp_path / "out")


def test_an_output_of_another_verb_is_not_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "out", Output("export"))
    with pytest.raises(UsageError, match="was not written by 'edgeq compress'"):
        _write(tmp_path / "out")


def test_what_appears_during_the_work_is_not_erased(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out)
    with pytest.raises(UsageError, match=r"late\.txt was not written"), new_folder(out, OUTPUT):
        (out / "late.txt").write_text("mine")
    assert (out / "late.txt").read_text() == "mine"


def test_a_marker_that_someone_else_wrote_vouches_for_nothing(tmp_path: Path) -> None:
    for text in (b"", b"written by edgeq compress", b"\xff\xfe", b"thesis.txt\n"):
        (tmp_path / MARKER).write_bytes(text)
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(UsageError, match="was not written by"):
            check_new_folder(tmp_path, OUTPUT)
    (tmp_path / MARKER).unlink()
    os.mkfifo(tmp_path / MARKER)
    with pytest.raises(UsageError, match="was not written by"):
        check_new_folder(tmp_path, OUTPUT)


def test_an_empty_folder_and_a_linked_one_are_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("first", "second"):
        _write(tmp_path / "link", name=name)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "deep" / "second").is_file()
    assert not (tmp_path / "real" / "deep" / "first").exists()


def test_a_source_is_not_replaced_even_by_force(tmp_path: Path) -> None:
    (tmp_path / "out" / "source").mkdir(parents=True)
    for source in ("out/source", "out"):
        with pytest.raises(UsageError, match="would replace the source"):
            check_new_folder(tmp_path / "out", OUTPUT, force=True, sources=[tmp_path / source])
    check_new_folder(tmp_path / "out" / "source" / "inside", OUTPUT, sources=[tmp_path / "out" / "source"])


def test_a_mounted_file_system_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    with pytest.raises(UsageError, match="is a file system of its own"):
        check_new_folder(tmp_path, OUTPUT, force=True)


def test_parts_of_edgeqs_own_folders_are_known_by_their_files(tmp_path: Path) -> None:
    state = made_of("compress", "state.json")
    for text in ("old", "new"):
        with new_folder(tmp_path / "state", state) as folder:
            (folder / "state.json").write_text(text)
    assert _everything(tmp_path / "state") == {"state.json": "new"}
    (tmp_path / "state" / "mine").write_text("")
    with pytest.raises(UsageError, match="mine was not written"):
        check_new_folder(tmp_path / "state", state)


def test_the_old_output_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)  # as on a file system that cannot
    _write(tmp_path / "out", name="old")
    rename = os.replace

    def fails_for_the_new_one(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_for_the_new_one)
    with pytest.raises(OSError, match="no"):
        _write(tmp_path / "out", name="new")
    assert (tmp_path / "out" / "deep" / "old").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_output_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    if not files._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange two folders in one step")
    _write(tmp_path / "out", name="old")
    monkeypatch.delattr(os, "replace")  # between two of them, a kill would leave no output at all
    _write(tmp_path / "out", name="new")
    assert (tmp_path / "out" / "deep" / "new").is_file()
    assert not (tmp_path / "out" / "deep" / "old").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other", "out"]


KILLED = """
import os, pathlib, signal, sys
from edgeq.files import Output, new_folder

with new_folder(pathlib.Path(sys.argv[1]), Output("compress")) as folder:
    (folder / "large").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_system_without_locks_of_folders_gets_outputs_and_keeps_leftovers(tmp_path: Path, monkeypatch) -> None:
    """NFS is one: a folder cannot be opened for writing, which its locks need."""

    def no_lock(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    (tmp_path / ".out.12345678.partial").mkdir()
    with new_folder(tmp_path / "out", OUTPUT) as folder:
        (folder / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.12345678.partial", "out"]


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, out], check=False)
    assert len(list(tmp_path.glob(".out.*.partial/large"))) == 1
    for mine in (".out.mine.partial", ".outer.12345678.partial", ".out.12345678.old"):
        (tmp_path / mine).mkdir()
    (tmp_path / ".out.abcdefgh.partial").write_text("a file")
    with new_folder(out, OUTPUT) as living, new_folder(out, OUTPUT) as second:
        assert living.is_dir()
        (second / "a").write_text("")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(".out.12345678.old", ".out.abcdefgh.partial", ".out.mine.partial", ".outer.12345678.partial", "out"),
    ]


@pytest.mark.parametrize("named", [False, True])
def test_a_file_appears_in_one_step(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if named:
        monkeypatch.setattr(files, "_unnamed_file", lambda _: None)  # as on a file system that cannot
    elif (handle := files._unnamed_file(tmp_path)) is None:
        pytest.skip("this file system has no files without a name")
    else:
        os.close(handle)
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        with files.new_file(path, mode=0o640) as stream:
            stream.write(content)
            assert len(os.listdir(tmp_path)) == named + (content == b"new")
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o640)
    with pytest.raises(FileExistsError), files.new_file(path, replace=False) as stream:
        stream.write(b"other")
    with pytest.raises(KeyboardInterrupt), files.new_file(path) as stream:
        raise KeyboardInterrupt
    assert path.read_bytes() == b"new"
    with files.new_file(tmp_path / "second", replace=False) as stream:
        stream.write(b"second")
    assert sorted(os.listdir(tmp_path)) == ["file", "second"]


def test_a_file_of_others_is_not_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    check_new_file(page, verb="report", marker=b"edgeq")
    page.write_text("<p>mine")
    with pytest.raises(UsageError, match=r"page\.html was not written by 'edgeq report'.*--force"):
        check_new_file(page, verb="report", marker=b"edgeq")
    check_new_file(page, verb="report", marker=b"edgeq", force=True)
    page.write_text("<p>by edgeq")
    check_new_file(page, verb="report", marker=b"edgeq")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="was not written by"):
        check_new_file(tmp_path / "pipe", verb="report", marker=b"edgeq")
    with pytest.raises(UsageError, match="is a folder"):
        check_new_file(tmp_path, verb="report", marker=b"edgeq", force=True)
