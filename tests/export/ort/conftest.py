"""Models of one operator each, and the library that runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.export.ops import OPERATORS, attach_bodies
from edgeq.formats.low_bit import OP_DOMAIN, levels
from edgeq.formats.packing import pack

MakeOnce = Callable[[str, Callable[[Path], object]], Path]


class OperatorModel:
    """A model with one LowBitLinear and one LowBitEmbedding on the same packed matrix, and what it must compute."""

    def __init__(
        self,
        *,
        bits: int = 2,
        zero_point: float = 1.0,
        activation: str = "dynamic",
        row_scales: bool = True,
        has_bias: bool = True,
        rows: int = 37,
        columns: int = 53,
        seed: int = 0,
        bodies: bool = True,
    ) -> None:
        random = np.random.default_rng(seed)
        low, high = levels(bits, zero_point)
        codes = random.integers(low, high + 1, (rows, columns))
        self.rows, self.columns, self.activation = rows, columns, activation
        self.constants = {
            "W": pack(codes, bits),
            "s": (random.random(rows if row_scales else 1) + 0.1).astype(np.float32),
            "b": random.standard_normal(rows).astype(np.float32) if has_bias else np.zeros(1, np.float32),
        }
        if activation == "static":
            self.constants["a"] = np.array([0.03], np.float32)
        self.attributes = {"N": rows, "K": columns, "bits": bits, "zero_point": zero_point}
        self.proto = self._proto()
        if bodies:
            attach_bodies(self.proto)

    def _proto(self) -> onnx.ModelProto:
        names = ["x", *self.constants]
        linear = helper.make_node(
            "LowBitLinear", names, ["y"], name="linear", domain=OP_DOMAIN, activation=self.activation, **self.attributes
        )
        table = helper.make_node("LowBitEmbedding", ["ids", "W", "s"], ["z"], domain=OP_DOMAIN, **self.attributes)
        graph = helper.make_graph(
            [linear, table],
            "test",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", "width"]),
                helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"]),
            ],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
                helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
            ],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OP_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def inputs(self, batch: int, sequence: int, *, seed: int = 1) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        x = (random.standard_normal((batch, sequence, self.columns)) * 3).astype(np.float32)
        if x.size:
            x[0, 0] = 0  # a row of zeros has no scale of its own
        return {"x": x, "ids": random.integers(0, self.rows, (batch, sequence))}

    def expected(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        linear, table = OPERATORS["LowBitLinear"].reference, OPERATORS["LowBitEmbedding"].reference
        y = linear(inputs["x"], *self.constants.values(), activation=self.activation, **self.attributes)
        return [y, table(inputs["ids"], self.constants["W"], self.constants["s"], **self.attributes)]


@pytest.fixture(scope="session")
def operator_model() -> Callable[..., OperatorModel]:
    """Returns the class :class:`OperatorModel`."""
    return OperatorModel


@pytest.fixture(scope="session")
def small_library(make_once: MakeOnce) -> Path:
    """The library with the kernels of this processor for 2 bits alone, which takes seconds to build."""
    from edgeq.export.ort import build_library
    from edgeq.targets.builtin.target import load_target

    of_host = [load_target("host")]
    folder = make_once("ort-small", lambda folder: build_library(folder, levels=of_host, bits=(2,)))
    return folder / "libedgeq_ort.so"


@pytest.fixture(scope="session")
def whole_library(make_once: MakeOnce) -> Path:
    """The library with all kernels, as `edgeq ort-library` builds it."""
    from edgeq.export.ort import build_library

    return make_once("ort-whole", build_library) / "libedgeq_ort.so"


@pytest.fixture
def with_kernels() -> Iterator[Callable[[str], None]]:
    """Returns a function that makes sessions take the kernels of one instruction set."""
    before = os.environ.get("EDGEQ_ORT_KERNELS")

    def choose(name: str) -> None:
        os.environ["EDGEQ_ORT_KERNELS"] = name

    yield choose
    os.environ.pop("EDGEQ_ORT_KERNELS", None)
    if before is not None:
        os.environ["EDGEQ_ORT_KERNELS"] = before


@pytest.fixture(scope="session")
def open_session() -> Callable[..., Any]:
    """Returns a function that opens a session on a model with a library (or without one)."""

    def open_(model: onnx.ModelProto | Path, library: Path | None, *, threads: int = 1) -> Any:
        import onnxruntime

        from edgeq.export.ort import session_options

        options = onnxruntime.SessionOptions() if library is None else session_options(library)
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        content = str(model) if isinstance(model, Path) else model.SerializeToString()
        return onnxruntime.InferenceSession(content, options)

    return open_


@pytest.fixture(scope="session")
def compiled_linear() -> Callable[[OperatorModel, np.ndarray], np.ndarray]:
    """Returns a function that runs the LowBitLinear of a model in the kernels that bundles hold, sizes compiled in."""
    from edgeq.formats.low_bit import PackedMatrix
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.compiler.objects import PASS_OPTIONS
    from edgeq.targets.compiler.tvm_import import import_tvm

    tvm = import_tvm()
    from edgeq.targets.compiler.isa import isa_named
    from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
    from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
    from edgeq.targets.compiler.kernels.weight_only_matmul import weight_only_matmul

    host = load_target("host")
    made: dict[Any, Any] = {}

    def compiled(key: Any, build: Callable[[], Any]) -> Any:
        if key not in made:
            module = tvm.IRModule({"main": build().with_attr("global_symbol", "main")})
            with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
                made[key] = tvm.compile(module, target=tvm.target.Target(host.tvm_target))["main"]
        return made[key]

    def run(model: OperatorModel, x: np.ndarray) -> np.ndarray:
        rows = x.reshape(-1, model.columns)
        names = ("N", "K", "bits", "zero_point")
        matrix = PackedMatrix(*(model.attributes[name] for name in names), scales=len(model.constants["s"]))
        has_bias = len(model.constants["b"]) > 1
        options = {"rank": 1, "has_bias": has_bias}
        weight = [tvm.runtime.tensor(model.constants[name]) for name in "sb"]
        weight.insert(0, tvm.runtime.tensor(model.constants["W"].view(np.int32)[..., 0]))
        out = tvm.runtime.tensor(np.zeros((len(rows), model.rows), np.float32))
        isa = isa_named(host.isa)
        given = tvm.runtime.tensor(rows)
        if model.activation == "none":
            compiled(("w", matrix, has_bias), lambda: weight_only_matmul(isa, matrix, **options))(given, *weight, out)
            return np.asarray(out.numpy())
        static = model.activation == "static"
        shapes = [((len(rows), padded_columns(model.columns) // 4), np.int32)]
        shapes += [((len(rows),), np.float32), ((len(rows),), np.int32)]
        quantized = [tvm.runtime.tensor(np.zeros(*shape)) for shape in shapes]
        quantizer = compiled(("q", model.columns, static), lambda: quantize_rows(model.columns, rank=1, static=static))
        quantizer(given, *([tvm.runtime.tensor(model.constants["a"])] if static else []), *quantized)
        product = compiled(("p", matrix, has_bias), lambda: low_bit_matmul(isa, matrix, **options))
        product(*quantized, *weight, out)
        return np.asarray(out.numpy())

    return run
