"""ONNX files to kernels and plans: float layers, interfaces, and what is refused."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler import importer
from edgeq.targets.compiler.compile import compile_onnx
from edgeq.targets.compiler.converters import kernel_calls, linear
from edgeq.targets.compiler.graph import attributes
from edgeq.targets.compiler.linking import link_code
from edgeq.targets.compiler.run_plan import CompiledCode
from edgeq.targets.toolchain.linkers import find_linker

OPSETS = [helper.make_opsetid("", 23), helper.make_opsetid("ai.edgeq", 1)]


def save(path: Path, nodes, inputs, outputs, **initializers: np.ndarray) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        stored,
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
    onnx.save(model, path)
    return model


def run(compiled, *inputs: np.ndarray) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "code.so"
        link_code(compiled, library, find_linker(load_target("host")))
        return CompiledCode(compiled, library).run(inputs)


def test_float_layers_match_the_reference_evaluator(tmp_path):
    """A position-wise network of float layers: look-ups, products in both orders, norms, activations."""
    generator = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["p"]),
        helper.make_node("Add", ["p", "b1"], ["h"]),
        helper.make_node("Gelu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["o"]),
        helper.make_node("LayerNormalization", ["o", "g", "b2"], ["n"], epsilon=1e-5),
        helper.make_node("Tanh", ["n"], ["t"]),
        helper.make_node("Erf", ["n"], ["y2"]),
        helper.make_node("Gather", ["t", "first"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y1"], transB=1),
    ]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        [("ids", TensorProto.INT64, ["batch", "sequence"])],
        [("y1", ["batch", 5]), ("y2", ["batch", "sequence", 13])],
        table=random(11, 7), w1=random(7, 19), b1=random(19), w2=random(19, 13), g=random(13), b2=random(13),
        w3=random(5, 13), b3=random(5), first=np.array(0),
    )  # fmt: skip
    compiled = compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    assert [(i.name, i.dtype, i.shape, i.maximum) for i in compiled.inputs] == [
        ("ids", "int64", ("batch", "sequence"), 10)
    ]
    assert [o.name for o in compiled.outputs] == ["y1", "y2"]
    for shape in ((1, 1), (3, 5), (2, 17)):
        ids = generator.integers(0, 11, shape)
        expected = ReferenceEvaluator(model).run(None, {"ids": ids})
        for found, reference in zip(run(compiled, ids), expected, strict=True):
            assert np.allclose(found, reference, rtol=1e-4, atol=1e-4)


def test_a_table_that_is_a_matrix_as_well(tmp_path):
    """A tied head: rows are looked up in what its product reads, and the table is stored once."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Gemm", ["e", "table"], ["y"], transB=1),
        helper.make_node("Gemm", ["e", "w"], ["z"]),
    ]
    generator = np.random.default_rng(0)
    model = save(
        tmp_path / "m.onnx",
        nodes,
        [("ids", TensorProto.INT64, ["n"])],
        [("y", ["n", 19]), ("z", ["n", 3])],
        table=generator.standard_normal((19, 7)).astype(np.float32),
        w=generator.standard_normal((7, 3)).astype(np.float32),
    )
    ids = np.array([3, 0, 18, 7, 7])
    compiled = compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    stored = [weight for weight in compiled.weights if weight.kind != "constant"]
    assert {weight.name: weight.array.shape for weight in stored} == {"table": (2, 7, 16), "w": (1, 7, 16)}
    for found, expected in zip(run(compiled, ids), ReferenceEvaluator(model).run(None, {"ids": ids}), strict=True):
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def low_bit_model(path: Path, *, n: int = 5, k: int = 7, codes: np.ndarray | None = None, **attributes) -> None:
    codes = np.random.default_rng(0).integers(0, 3, (n, k)).astype(np.uint8) if codes is None else codes
    values = {"N": n, "K": k, "bits": 2, "zero_point": 1.0, "activation": "dynamic", **attributes}
    node = helper.make_node("LowBitLinear", ["x", "w", "s", "b"], ["y"], name="layer.3", domain="ai.edgeq", **values)
    save(
        path, [node], [("x", TensorProto.FLOAT, ["rows", k])], [("y", ["rows", n])],
        w=pack(codes, values["bits"] if values["bits"] in (4, 8) else 2),
        s=np.ones(1, np.float32), b=np.zeros(1, np.float32),
    )  # fmt: skip


def test_packed_weights_stay_as_they_are_stored(tmp_path):
    low_bit_model(tmp_path / "m.onnx")
    compiled = compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    (weight, *_) = [weight for weight in compiled.weights if weight.name == "w"]
    stored = next(t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == "w")
    assert weight.array.tobytes() == numpy_helper.to_array(stored).tobytes()
    assert weight.array.dtype == np.int32
    assert (weight.kind, weight.bits, weight.zero_point) == ("packed", 2, 1.0)


def test_attributes_that_contradict_the_weight_are_refused(tmp_path):
    low_bit_model(tmp_path / "m.onnx", N=33)
    with pytest.raises(FormatError, match=r"layer\.3: expected a packed weight of .* found"):
        compile_onnx(tmp_path / "m.onnx", target=load_target("host"))


def test_impossible_bits_are_refused(tmp_path):
    low_bit_model(tmp_path / "m.onnx", bits=3)
    with pytest.raises(FormatError, match="bits must be one of"):
        compile_onnx(tmp_path / "m.onnx", target=load_target("host"))


def test_the_unused_code_of_an_8_bit_matrix_is_refused(tmp_path):
    """AVX2 would compute something else than the other instruction sets; padding holds that code, and is fine."""
    codes = np.full((5, 7), 1, np.uint8)
    low_bit_model(tmp_path / "m.onnx", codes=codes, bits=8, zero_point=128.0)
    compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    codes[4, 6] = 0
    low_bit_model(tmp_path / "m.onnx", codes=codes, bits=8, zero_point=128.0)
    with pytest.raises(FormatError, match=r"layer\.3: an 8-bit matrix uses the codes 1 to 255, found 0"):
        compile_onnx(tmp_path / "m.onnx", target=load_target("host"))


@pytest.mark.parametrize(
    ("bits", "largest", "expected"), [(8, 127, True), (8, 128, False), (8, 255, False), (4, 15, False)]
)
def test_the_codes_of_a_matrix_choose_its_kernel(tmp_path, monkeypatch, bits, largest, expected):
    """One code above 127 takes the kernel of 8 bits, whatever the zero point; both give the same outputs."""
    build, chosen = linear.low_bit_matmul, []

    @functools.wraps(build)
    def recorded(*arguments, seven_bits=False, **options):
        chosen.append(seven_bits)
        return build(*arguments, seven_bits=seven_bits, **options)

    monkeypatch.setattr(linear, "low_bit_matmul", recorded)
    monkeypatch.setattr(kernel_calls, "_built", {})
    codes = np.random.default_rng(0).integers(1, min(2**bits, 128), (37, 53)).astype(np.uint8)
    codes[36, 52] = largest
    low_bit_model(tmp_path / "m.onnx", n=37, k=53, codes=codes, bits=bits, zero_point=7.0)
    compiled = compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    assert chosen == [expected]
    x = np.random.default_rng(1).standard_normal((9, 53)).astype(np.float32)
    a_scale = np.abs(x).max(axis=1, keepdims=True).astype(np.float32)
    q = np.rint(x * (np.float32(127) / a_scale)).astype(np.float64)
    (found,) = run(compiled, x)
    assert np.allclose(found, (q @ (codes - 7.0).T) * a_scale / 127, rtol=1e-6, atol=0)


def test_every_reader_of_a_matrix_takes_the_same_kernel(tmp_path):
    """Two layers on one matrix of codes below 128: both are marked, and padding counts for nothing."""
    packed = pack(np.full((5, 7), 127, np.uint8), 8)
    nodes = [helper.make_node("LowBitLinear", [x, "w", "s", "b"], [y], bits=8, N=5, K=7) for x, y in ("ab", "cd")]
    importer._mark_seven_bits(nodes, packed)
    assert [attributes(node).get(linear.SEVEN_BITS) for node in nodes] == [1, 1]
    packed[0, 0, 0, 0] = 128
    fresh = helper.make_node("LowBitLinear", ["a", "w", "s", "b"], ["y"], bits=8, N=5, K=7)
    importer._mark_seven_bits([fresh], packed)
    assert linear.SEVEN_BITS not in attributes(fresh)


def test_an_operator_without_a_kernel_is_named(tmp_path, capfd):
    nodes = [helper.make_node("Softmax", ["x"], ["s"], name="attn.softmax"), helper.make_node("Exp", ["s"], ["y"])]
    save(tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, ["n", 4])], [("y", ["n", 4])])
    with pytest.raises(UnsupportedError, match=r"Exp \(node 'y'\), Softmax \(node 'attn.softmax'\); export with"):
        compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    assert capfd.readouterr().out == ""


def test_an_attention_without_a_kernel_is_explained(tmp_path, capfd):
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2, is_causal=1)
    save(tmp_path / "m.onnx", [node], [("x", TensorProto.FLOAT, ["b", "s", 8])], [("y", ["b", "s", 8])])
    with pytest.raises(UnsupportedError, match="is_causal"):
        compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("damage", ["truncated", "not protobuf", "missing data"])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, damage):
    path = tmp_path / "m.onnx"
    low_bit_model(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "not protobuf":
        path.write_bytes(b"\xff" * 100)
    else:
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
        (tmp_path / "m.data").unlink()
    with pytest.raises(FormatError, match=r"m\.onnx") as caught:
        compile_onnx(path, target=load_target("host"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_at_known_places(tmp_path, axis):
    """A place from the end is known where the size is; elsewhere it is refused."""
    node = helper.make_node("Gather", ["x", "at"], ["y"], axis=axis, name="pick")
    at = np.array([1, -1] if axis == 1 else [1, 0])
    shape = ["n", 2] if axis == 1 else [2, 4]
    model = save(tmp_path / "m.onnx", [node], [("x", TensorProto.FLOAT, ["n", 4])], [("y", shape)], at=at)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    compiled = compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
    assert np.array_equal(run(compiled, x)[0], ReferenceEvaluator(model).run(None, {"x": x})[0])
    if axis == 0:
        save(tmp_path / "m.onnx", [node], [("x", TensorProto.FLOAT, ["n", 4])], [("y", [2, 4])], at=np.array([0, -1]))
        with pytest.raises(UnsupportedError, match="pick: an index of Gather counts from the end"):
            compile_onnx(tmp_path / "m.onnx", target=load_target("host"))
