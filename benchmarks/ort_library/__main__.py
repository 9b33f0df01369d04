"""Measures one low-bit layer in three ways, in turns; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.machine import facts, turn_seconds
from edgeq.formats.low_bit import OP_DOMAIN, PackedMatrix

SHAPES = ((768, 768), (3072, 768), (768, 3072), (50257, 768))
TOKENS = (1, 8, 128)
COPIES = 9
"""Nodes of the longer session; see README.md."""
LONG_OUTPUT = 1 << 15
"""From so many outputs on, the node takes so long that a session of one is measured."""
LEAST_OF_BUNDLE = 0.9

Call = Callable[[], object]


def aligned(*shape: int) -> np.ndarray:
    """Returns zeros, float32, at a multiple of 64 bytes, as ONNX Runtime allocates inside a model."""
    count = int(np.prod(shape))
    room = np.zeros(count + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + count].reshape(shape)


def model_of(node: onnx.NodeProto, constants: dict[str, np.ndarray], columns: int, copies: int) -> bytes:
    """Returns a model of so many copies of a node."""
    nodes, outputs = [], []
    for number in range(copies):
        one = onnx.NodeProto()
        one.CopyFrom(node)
        one.output[0] = f"y{number}"
        nodes.append(one)
        outputs.append(helper.make_tensor_value_info(one.output[0], TensorProto.FLOAT, None))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", columns])
    graph = helper.make_graph(nodes, "layer", [given], outputs, tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(node.domain, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


class Sessions:
    """One layer in ONNX Runtime, as a session of one node and one of several."""

    def __init__(self, node: onnx.NodeProto, constants: dict[str, np.ndarray], matrix: PackedMatrix, options: Any):
        import onnxruntime

        self._matrix = matrix
        self._sessions = {
            copies: onnxruntime.InferenceSession(model_of(node, constants, matrix.columns, copies), options())
            for copies in (1, COPIES)
        }

    def calls(self, x: np.ndarray) -> list[Call]:
        """The session of one node, and for short nodes the one of several."""
        import onnxruntime

        calls: list[Call] = []
        for copies in (1,) if len(x) * self._matrix.rows >= LONG_OUTPUT else (1, COPIES):
            session = self._sessions[copies]
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
            out = onnxruntime.OrtValue.ortvalue_from_numpy(aligned(len(x), self._matrix.rows))
            for output in session.get_outputs():  # all into one place, which stays in the caches
                binding.bind_ortvalue_output(output.name, out)
            calls.append(lambda session=session, binding=binding: session.run_with_iobinding(binding))  # type: ignore[misc]
        return calls


def bundle_call(matrix: PackedMatrix, constants: dict[str, np.ndarray], x: np.ndarray) -> Call:
    """The quantizer and the product that a bundle has for this size."""
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.compiler.objects import PASS_OPTIONS
    from edgeq.targets.compiler.tvm_import import import_tvm

    tvm = import_tvm()
    from edgeq.targets.compiler.isa import isa_named
    from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
    from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows

    host = load_target("host")
    functions = {
        "quantize": quantize_rows(matrix.columns, rank=1, static=False),
        "multiply": low_bit_matmul(isa_named(host.isa), matrix, rank=1, has_bias=True),
    }
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        library = tvm.compile(module, target=tvm.target.Target(host.tvm_target))
    quantize, multiply, tensor = library["quantize"], library["multiply"], tvm.runtime.tensor
    sizes = [((len(x), padded_columns(matrix.columns) // 4), np.int32), ((len(x),), np.float32), ((len(x),), np.int32)]
    codes = [tensor(np.zeros(*size)) for size in sizes]
    weight = [tensor(constants["W"].view(np.int32)[..., 0]), tensor(constants["s"]), tensor(constants["b"])]
    given, out = tensor(x), tensor(np.zeros((len(x), matrix.rows), np.float32))

    def call() -> None:
        quantize(given, *codes)
        multiply(*codes, *weight, out)

    return call


def layers(matrix: PackedMatrix, threads: int, library: Path) -> tuple[dict[str, np.ndarray], Sessions, Sessions]:
    """Random weights, and sessions of the library and of ONNX Runtime's own operator."""
    import onnxruntime

    from edgeq.export.ort import session_options

    random, block = np.random.default_rng(0), 128
    constants = {
        "W": random.integers(0, 256, matrix.packed_shape, dtype=np.uint8),
        "s": random.random(matrix.rows).astype(np.float32),
        "b": random.random(matrix.rows).astype(np.float32),
    }
    blocks = -(-matrix.columns // block)
    packed = {
        "W": random.integers(0, 256, (matrix.rows, blocks, block // 4), dtype=np.uint8),
        "s": random.random(matrix.rows * blocks).astype(np.float32),
    }

    def options(made: Any) -> Any:
        made.intra_op_num_threads = threads
        return made

    size = {"N": matrix.rows, "K": matrix.columns, "bits": matrix.bits}
    ours = helper.make_node("LowBitLinear", ["x", "W", "s", "b"], ["y"], domain=OP_DOMAIN, zero_point=1.0,
                            activation="dynamic", **size)  # fmt: skip
    theirs = helper.make_node("MatMulNBits", ["x", "W", "s"], ["y"], domain="com.microsoft", block_size=block,
                              accuracy_level=4, **size)  # fmt: skip
    return (
        constants,
        Sessions(ours, constants, matrix, lambda: options(session_options(library))),
        Sessions(theirs, packed, matrix, lambda: options(onnxruntime.SessionOptions())),
    )


def measure(matrix: PackedMatrix, library: Path, *, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Measures one matrix; times are the fastest of all turns, in microseconds."""
    constants, ours, theirs = layers(matrix, threads, library)
    cells = []
    for count in TOKENS:
        x = aligned(count, matrix.columns)
        x[:] = np.random.default_rng(1).standard_normal(x.shape)
        groups = [[bundle_call(matrix, constants, x)], ours.calls(x), theirs.calls(x)]
        timers = [[turn_seconds(call, 0.02) for call in group] for group in groups]
        best = [[np.inf] * len(group) for group in groups]
        for _ in range(rounds):
            for group, timed in enumerate(timers):
                for place, timer in enumerate(timed):
                    best[group][place] = min(best[group][place], timer())
        bundle, shared, own = (
            seconds[0] if len(seconds) == 1 else (seconds[1] - seconds[0]) / (COPIES - 1) for seconds in best
        )
        cell = {"shape": f"{matrix.rows}x{matrix.columns}", "tokens": count, "bundle": bundle, "library": shared}
        cells.append({**cell, "matmulnbits": own})
        print(f"{cell['shape']:>10} M={count:<4} bundle {bundle * 1e6:9.1f}  library {shared * 1e6:9.1f}  "
              f"MatMulNBits {own * 1e6:9.1f} us", flush=True)  # fmt: skip
    return cells


def failures(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Names the cells that miss a goal."""
    found = []
    for cell in cells:
        place = f"{cell['shape']}, {cell['tokens']} rows"
        if cell["bundle"] / cell["library"] < LEAST_OF_BUNDLE:
            found.append(f"{place}: {cell['bundle'] / cell['library']:.2f} of the bundle's kernel")
        if cell["library"] >= cell["matmulnbits"]:
            found.append(f"{place}: not faster than MatMulNBits")
    return found


def main() -> None:
    """Runs the measurement named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--library", type=Path, help="what `edgeq ort-library` built; default: the user's cache")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)  # read when TVM is loaded
    from edgeq.export.ort import cached_library

    library = arguments.library or cached_library()
    machine = facts()
    cells = []
    for rows, columns in SHAPES:
        matrix = PackedMatrix(rows, columns, 2, 1.0, rows)
        cells += measure(matrix, library, threads=arguments.threads, rounds=arguments.rounds)
    if arguments.out is not None:
        result = {"machine": machine, "threads": arguments.threads, "rounds": arguments.rounds, "seconds": cells}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    missed = failures(cells)
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
