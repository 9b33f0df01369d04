"""The tables of the benchmark of the search."""

from benchmarks.search.table import compared_lines, promise_lines

MACHINE = {"processor": "P", "date": "2026-01-02 03:04 UTC", "commit": "abc"}


def _compared(name: str, gain: list[float]) -> dict[str, object]:
    values = {"value": 0.85, "uniform_value": 0.8, "search_cpu_seconds": 150.4, "method": "nearest"}
    return {"name": name, "budget": 2000, "bytes": 1990, "gain": gain, "threads": 1, "machine": MACHINE, **values}


def test_better_means_that_the_whole_interval_is_above_zero() -> None:
    gains = {"a/best/x": [0.1, 0.2, 0.3], "b/best/x": [-0.1, 0.2, 0.3], "c/smaller/x": [-0.1, -0.05, 0.0],
             "d/smaller/x": [-0.3, -0.2, -0.1]}  # fmt: skip
    lines = compared_lines([_compared(name, gain) for name, gain in gains.items()])
    assert [line.split(" | ")[-1] for line in lines[2:6]] == ["reached |", "MISSED |", "reached |", "MISSED |"]
    assert lines[2] == "| a/best/x | 2,000 | 1,990 | nearest | 0.85 | 0.8 | +0.2 [+0.1, +0.3] | 150 | reached |"
    assert lines[-1] == "P, 1 thread, 2026-01-02; commit abc."


def test_promises_are_counted() -> None:
    row = {"promised": [-0.01, 0.0, 0.01], "found": 0.02, "kept": False, "threads": 1, "machine": MACHINE}
    kept = row | {"name": "minilm/promise/2", "found": 0.005, "kept": True}
    lines = promise_lines([row | {"name": "minilm/promise/10"}, kept])
    assert lines[2] == "| minilm/promise/2 | +0 [-0.01, +0.01] | +0.005 | yes |"
    assert lines[-1] == "1 of 2 promises were kept. P, 1 thread, 2026-01-02; commit abc."
    assert compared_lines([]) == promise_lines([]) == ["No rows yet."]
