"""What ``deploy`` holds at a time: a second copy of a model would show here as one more time its bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.memory.__main__ import MOST
from benchmarks.memory.stage import STAGES, growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/clear_refs, which Linux has")


def _run_folder(folder: Path, source: Path) -> Path:
    folder.mkdir()
    source.rename(folder / "float")
    return folder


@pytest.fixture(scope="module")
def folders(make_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a table of many narrow rows, most of its 96 MB, and a small one that brings the libraries in first."""
    place = tmp_path_factory.mktemp("memory")
    large = make_bert(vocab_size=250_037, hidden_size=96, num_attention_heads=2, num_hidden_layers=1)
    return _run_folder(place / "large", large), _run_folder(place / "small", make_bert(num_hidden_layers=1))


def _check(stages: tuple[str, ...], large: Path, small: Path) -> None:
    size = (large / "float" / "model.safetensors").stat().st_size
    for stage in stages:
        STAGES[stage](small)
        taken = growth(lambda work=STAGES[stage]: work(large))["bytes"]
        assert taken < MOST * size, f"{stage}: {taken / size:.2f} times the checkpoint"


def test_compressing_holds_no_copy_too_many(folders: tuple[Path, Path]) -> None:
    _check(("compress",), *folders)


@pytest.mark.slow  # exports four graphs
def test_exporting_holds_no_copy_too_many(folders: tuple[Path, Path]) -> None:
    large, small = folders
    for folder in folders:
        if not (folder / "checkpoint").is_dir():
            STAGES["compress"](folder)
    _check(("export", "export float"), large, small)


@pytest.mark.slow  # compiles two models
def test_comparing_holds_no_copy_too_many(folders: tuple[Path, Path]) -> None:
    large, small = folders
    for folder in folders:
        for stage in ("compress", "export", "export float"):
            STAGES[stage](folder)
    _check(("compile", "accuracy", "parity"), large, small)


def test_the_count_sees_a_copy_that_is_gone_again() -> None:
    def work() -> None:
        b"x" * (1 << 27)

    assert growth(work)["bytes"] > 0.9 * (1 << 27)
