"""Sizes and counts as people write them."""

import pytest

from edgeq.errors import UsageError
from edgeq.sizes import counted, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"), [("8MB", 8_000_000), ("7.5MiB", 7_864_320), ("500000", 500_000), ("1 kb", 1000), ("3B", 3)]
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text, option="--max-bytes") == expected


@pytest.mark.parametrize("text", ["", "8 potatoes", "-1MB", "0", "MB", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-bytes"):
        parse_bytes(text, option="--max-bytes")


def test_one_is_not_many() -> None:
    assert [counted(count, "thread") for count in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
