"""The tables of the benchmark of calibration."""

import numpy as np
import pytest

from benchmarks.calibration.quality import embed, neighbour_share
from benchmarks.calibration.table import goal_lines, put, result_lines

MACHINE = {"processor": "P", "date": "2026-01-02 03:04 UTC", "commit": "abc"}


def _row(name: str, **quality: float) -> dict[str, object]:
    return {"name": name, "bytes": 1000, "cpu_seconds": 1.6, "threads": 1, "quality": quality, "machine": MACHINE}


def test_goals_are_reached_missed_or_open() -> None:
    rows = [
        _row("minilm/calibrated-w4a8", spearman=0.87, neighbours_kept=0.9),
        _row("gpt2/float", perplexity=100.0),
        _row("gpt2/calibrated-w4a8", perplexity=101.0),
        _row("gpt2/calibrated-w2e4a8", perplexity=125.5),
    ]
    verdicts = {tuple(line.split(" | ")[:2]): line.split(" | ")[-1] for line in goal_lines(rows)[2:]}
    assert verdicts["| minilm/calibrated-w4a8", "spearman"] == "reached |"
    assert verdicts["| minilm/calibrated-w4a8", "neighbours kept"] == "MISSED |"
    assert verdicts["| e5/calibrated-w4a8", "neighbours kept"] == "no row yet |"
    assert verdicts["| gpt2/calibrated-w4a8", "perplexity"] == "reached |"
    assert verdicts["| gpt2/calibrated-w2e4a8", "perplexity"] == "MISSED |"


def test_what_a_tool_refuses_is_a_row() -> None:
    refused = {"name": "gpt2/nncf/x", "missing": "RuntimeError: a|b", "threads": 1, "machine": MACHINE}
    lines = result_lines([_row("gpt2/nncf/int8", perplexity=3.5), refused])
    assert lines[2] == "| gpt2/nncf/int8 | 1,000 | 3.5 | 2 |"
    assert lines[3] == "| gpt2/nncf/x |  |  | RuntimeError: a/b |"
    assert lines[-1] == "P, 1 thread, 2026-01-02; commit abc."
    assert result_lines([]) == ["No rows yet."]
    page = put("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n", "x", ["new"])
    assert page == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"


def test_padding_is_no_part_of_an_embedding() -> None:
    def encode(ids: np.ndarray, mask: np.ndarray, _types: np.ndarray) -> np.ndarray:
        return np.stack([ids + 100 * (1 - mask), np.ones_like(ids)], axis=2).astype(np.float32)

    found = embed(encode, [[3, 5], [4], [1, 2, 3]])
    expected = np.array([[4, 1], [4, 1], [2, 1]]) / np.sqrt([[17], [17], [5]])
    assert found == pytest.approx(expected)
    assert neighbour_share(found, found) == 1.0
