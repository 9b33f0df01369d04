"""The ledger must count exactly the bytes that are in the files, whatever form the model has."""

import json
import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import FormatError, UsageError
from edgeq.export.external_data import ModelWriter
from edgeq.formats.low_bit import OP_DOMAIN, PackedMatrix
from edgeq.formats.packing import pack
from edgeq.ledger import ledger, megabytes, summary_line
from edgeq.results import CacheBytes

DTYPES = {"float32": "F32", "uint8": "U8", "int64": "I64"}
ROWS, COLUMNS = 37, 50


def write_safetensors(file, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": DTYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))


def matrix_tensors(bits):
    codes = np.ones((ROWS, COLUMNS), np.uint8)
    return pack(codes, bits), np.ones(ROWS, np.float32)


def write_config(folder, bits, zero_point):
    entry = {
        "kind": "linear", "rows": ROWS, "columns": COLUMNS, "bits": bits, "zero_point": zero_point,
        "scales": ROWS, "activation": "dynamic", "bias": True,
    }  # fmt: skip
    quantization = {
        "quant_method": "edgeq",
        "format_version": 1,
        "recipe": {"name": "ptq-w2a8", "sha256": "0" * 64},
        "tensors": {"layer.dense": entry},
        "kept_float": {"positions": "small"},
    }
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    codes, scale = matrix_tensors(2)
    tensors = {
        "layer.dense.weight_packed": codes,
        "layer.dense.scale": scale,
        "layer.dense.bias": np.zeros(ROWS, np.float32),
        "positions.weight": np.zeros((8, COLUMNS), np.float32),
        "LayerNorm.weight": np.ones(COLUMNS, np.float32),
    }
    write_safetensors(folder / "model.safetensors", tensors)
    write_config(folder, 2, 1.0)
    return folder


def test_checkpoint_rows_add_up_to_the_bytes_of_the_file(checkpoint):
    book = ledger(checkpoint)
    header_bytes = 8 + int.from_bytes((checkpoint / "model.safetensors").read_bytes()[:8], "little")
    assert book.stored_bytes + header_bytes == (checkpoint / "model.safetensors").stat().st_size
    low_bit = book.rows[0]
    assert (low_bit.tensor, low_bit.kind, low_bit.shape) == ("layer.dense", "linear", (ROWS, COLUMNS))
    # 37 rows become 48, 50 columns become 64: 48 * 64 * 2 bits.
    assert low_bit.code_bytes + low_bit.padding_bytes == 48 * 64 * 2 // 8
    assert low_bit.code_bytes == -(-ROWS * COLUMNS * 2 // 8)
    assert low_bit.scale_bytes == 4 * ROWS
    assert low_bit.stored_bits == pytest.approx(8 * (768 + 148) / (ROWS * COLUMNS))


def test_every_float_row_says_why(checkpoint):
    reasons = {row.tensor: row.reason for row in ledger(checkpoint).rows if row.kind == "float"}
    assert reasons["positions.weight"] == "small"
    assert reasons["layer.dense.bias"].startswith("bias")
    assert reasons["LayerNorm.weight"].startswith("layer norm")


def test_papers_count_matrices_at_nominal_bits_only(checkpoint):
    book = ledger(checkpoint)
    assert book.paper_bytes == -(-ROWS * COLUMNS * 2 // 8) + 4 * 8 * COLUMNS
    assert book.ratio < book.paper_ratio
    assert "counted as papers do" in summary_line(book)


def test_json_totals_are_the_sums_of_its_rows(checkpoint):
    value = json.loads(json.dumps(ledger(checkpoint).to_json()))
    for field in ("code_bytes", "scale_bytes", "padding_bytes", "float_bytes"):
        assert value["totals"][field] == sum(row[field] for row in value["rows"])
    assert value["totals"]["float32_bytes"] == 4 * value["totals"]["weights"]


def test_bundle_gives_the_same_matrix_row_as_the_checkpoint(checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    codes, scale = matrix_tensors(2)
    weights = [("encoder.layer.dense.weight_packed", codes), ("encoder.layer.dense.scale", scale)]
    listed = [
        {"name": name, "dtype": str(a.dtype), "shape": list(a.shape), "offset": 0, "bytes": a.nbytes}
        for name, a in weights
    ]
    (bundle / "manifest.json").write_text(json.dumps({"format": "edgeq-bundle", "weights": listed}))
    (bundle / "weights.bin").write_bytes(codes.tobytes() + scale.tobytes())
    write_config(bundle, 2, 1.0)
    assert ledger(bundle).rows == (ledger(checkpoint).rows[0],)
    (bundle / "weights.bin").write_bytes(codes.tobytes())
    with pytest.raises(FormatError, match=r"weights\.bin should hold"):
        ledger(bundle)


@pytest.mark.parametrize(
    ("state", "want"),
    [
        (
            [("float16", [3, "context_blocks", 12, 16]), ("float16", [3, "context", 12])],
            CacheBytes("float16", 2 * 2 * 3 * 12, 0),
        ),
        ([("int8", [3, "context_blocks", 16 * (12 + 4)])] * 2, CacheBytes("int8", 2 * 3 * (12 + 4), 0)),
        (
            [("float32", [3, "context", 12]), ("float32", [3, "source_context", 12])],
            CacheBytes("float32", 4 * 3 * 12, 4 * 3 * 12),
        ),
    ],
)
def test_a_bundle_says_what_its_cache_keeps_of_a_token(state, want, tmp_path):
    specs = [{"name": "cache", "dtype": dtype, "shape": ["batch", *shape]} for dtype, shape in state]
    manifest = {"format": "edgeq-bundle", "weights": [], "functions": {"main": {"state": specs}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "weights.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    book = ledger(tmp_path)
    assert book.cache == want
    assert f"keys and values in {want.dtype}: {want.token_bytes} bytes of memory for each token" in summary_line(book)
    specs[0]["dtype"] = "int4"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"manifest.json does not describe its caches as expected .*int4"):
        ledger(tmp_path)


@pytest.fixture
def onnx_file(tmp_path):
    codes, scale = matrix_tensors(4)
    node = helper.make_node(
        "LowBitLinear", ["x", "layer.dense.weight_packed", "s", "b"], ["y"], domain=OP_DOMAIN,
        N=ROWS, K=COLUMNS, bits=4, zero_point=8.0, activation="dynamic",
    )  # fmt: skip
    tensors = {"layer.dense.weight_packed": codes, "s": scale, "b": np.zeros(1, np.float32)}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", ROWS])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    file = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(OP_DOMAIN, 1)])
    onnx.save(model, str(file), save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    return file


def test_onnx_matrices_come_from_the_nodes(onnx_file):
    book = ledger(onnx_file)
    assert book.form == "onnx"
    assert book.rows[0].tensor == "layer.dense"
    assert book.rows[0].nominal_bits == 4
    assert book.stored_bytes == matrix_tensors(4)[0].nbytes + 4 * ROWS + 4
    assert ledger(onnx_file.parent).rows == book.rows


@pytest.fixture
def three_graphs(onnx_file, tmp_path):
    """One low-bit matrix in the three graphs of an encoder-decoder: codes in one place, small tensors in each."""
    folder = tmp_path / "three"
    folder.mkdir()
    with ModelWriter(folder) as writer:
        for index, name in enumerate(("encoder_model", "decoder_model", "decoder_with_past_model")):
            model = onnx.load(onnx_file)
            for tensor in model.graph.initializer:
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
            made = {"table": np.full(100, index, np.float32), "shape": np.array([0, 0, 3 + index // 2])}
            model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made.items())
            writer.write(name, model)
    return folder


def test_what_is_stored_once_counts_once_and_every_copy_counts(three_graphs):
    book = ledger(three_graphs)
    assert book.form == "onnx"
    rows = {row.tensor: row for row in book.rows}
    # Tensors that share nothing but a name are several; the copies of one are a row with the bytes of all.
    assert set(rows) == {
        "layer.dense", "b", "table", "table (decoder_model)", "table (decoder_with_past_model)",
        "shape", "shape (decoder_with_past_model)",
    }  # fmt: skip
    codes = matrix_tensors(4)[0].nbytes
    assert (rows["layer.dense"].code_bytes + rows["layer.dense"].padding_bytes) == codes
    assert rows["layer.dense"].scale_bytes == 3 * 4 * ROWS  # small: every graph holds them itself
    assert (rows["b"].stored_bytes, rows["b"].reason) == (3 * 4, "vector; in 3 graphs")
    assert (rows["shape"].kind, rows["shape"].stored_bytes) == ("integers", 2 * 3 * 8)
    assert book.stored_bytes == codes + 3 * 4 * (ROWS + 1) + 3 * 400 + 3 * 24
    assert book.weights == ROWS * COLUMNS + 1 + 3 * 100  # no copies, no integers
    assert book.is_compressed


def test_the_files_of_several_graphs_are_all_counted(three_graphs):
    book = ledger(three_graphs)
    assert book.tensor_file_bytes == sum(file.stat().st_size for file in three_graphs.iterdir())
    alone = ledger(three_graphs / "decoder_model.onnx")
    assert [row.tensor for row in alone.rows] == ["layer.dense", "b", "table", "shape"]
    assert alone.stored_bytes == matrix_tensors(4)[0].nbytes + 4 * (ROWS + 1) + 400 + 24


def test_a_missing_graph_of_several_is_named(three_graphs):
    (three_graphs / "decoder_model.onnx").unlink()
    with pytest.raises(FormatError, match=r"decoder_model\.onnx is missing although"):
        ledger(three_graphs)


def test_truncated_external_data_is_named(onnx_file):
    data = onnx_file.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"model\.onnx\.data should hold"):
        ledger(onnx_file)


def test_codes_that_do_not_fit_their_description_are_an_error(checkpoint):
    write_config(checkpoint, 4, 8.0)
    with pytest.raises(FormatError, match=r"layer\.dense\.weight_packed should take"):
        ledger(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_truncated_safetensors_is_a_format_error(checkpoint, keep):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        ledger(checkpoint)


def test_wrong_paths_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        ledger(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        ledger(tmp_path)
    (tmp_path / "deploy.json").write_text("{}")
    with pytest.raises(UsageError, match="whole run"):
        ledger(tmp_path)


def test_padding_formula_matches_the_format(checkpoint):
    spec = PackedMatrix(ROWS, COLUMNS, 2, 1.0, ROWS)
    assert ledger(checkpoint).rows[0].padding_bytes == pytest.approx(spec.padding_bytes, abs=1)


def test_megabytes_reads_well():
    assert megabytes(22_700_000) == "22.70 MB"
    assert megabytes(1500) == "1.5 kB"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 2, "format version 1, found 2"),
        ("pruning", {}, "has a key 'pruning'"),
        ("vocabulary", {"tokens": 9, "of": 8, "matrices": []}, "should keep some of its tokens"),
    ],
)
def test_what_loading_refuses_has_no_ledger(checkpoint, key, value, message):
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"][key] = value
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=message):
        ledger(checkpoint)
