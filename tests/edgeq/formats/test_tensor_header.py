import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgeq.errors import FormatError
from edgeq.formats.tensor_header import read_tensor_header


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file({"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.arange(5, dtype=np.uint8)}, path)
    return path


def _with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_names_types_shapes_and_places(good: Path) -> None:
    entries = read_tensor_header(good)
    assert {name: (e.dtype, e.shape, e.bytes) for name, e in entries.items()} == {
        "a": ("F32", (3, 4), 48),
        "b": ("U8", (5,), 5),
    }
    content = good.read_bytes()
    start = entries["a"].offset
    np.testing.assert_array_equal(np.frombuffer(content[start : start + 48], np.float32), np.arange(12))


def test_truncation_anywhere_is_noticed(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for length in range(0, len(content), 7):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(content[:length])
        with pytest.raises(FormatError):
            read_tensor_header(cut)


def test_bytes_too_many_are_noticed(good: Path) -> None:
    good.write_bytes(good.read_bytes() + b"\0")
    with pytest.raises(FormatError, match="found"):
        read_tensor_header(good)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {**ENTRY, "dtype": "F7"}},
        {"a": {**ENTRY, "dtype": ["F32"]}},
        {"a": {**ENTRY, "shape": [-2]}},
        {"a": {**ENTRY, "shape": [10**30]}},
        {"a": {**ENTRY, "shape": "2"}},
        {"a": {**ENTRY, "shape": [True, 2]}},
        {"a": {**ENTRY, "data_offsets": [8, 0]}},
        {"a": {**ENTRY, "data_offsets": [0, 8, 16]}},
        {"a": {**ENTRY, "data_offsets": [4, 12]}},
        {"a": ENTRY, "b": ENTRY},
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(FormatError):
        read_tensor_header(_with_header(tmp_path / "x.safetensors", header, bytes(8)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_refused_or_leaves_sizes_within_the_file(good: Path, data: st.DataObject) -> None:
    content = bytearray(good.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    damaged = good.with_name("damaged.safetensors")
    damaged.write_bytes(content)
    try:
        entries = read_tensor_header(damaged)
    except FormatError:
        return
    assert sum(entry.bytes for entry in entries.values()) < len(content)
