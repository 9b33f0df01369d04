"""A float table that is the head's matrix as well: stored once, and read by both."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.targets.compiler.passes import run_passes
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER

ROWS, WIDTH = 37, 20  # no multiples of a panel


def _model(*, also_added: bool = False) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["states"], axis=0),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["states", "turned"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "s", ROWS])]
    if also_added:
        nodes.append(helper.make_node("Add", ["table", "table"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [ROWS, WIDTH]))
    table = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "s"])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, [numpy_helper.from_array(table, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


@pytest.mark.parametrize("also_added", [True, False])
def test_only_a_table_that_nothing_else_reads_is_shared(also_added: bool) -> None:
    model = _model(also_added=also_added)
    run_passes(model.graph)
    assert (PANEL_GATHER in {node.op_type for node in model.graph.node}) is not also_added


def test_one_tensor_gives_rows_and_logits(tmp_path) -> None:
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.compiler.compile import compile_onnx
    from edgeq.targets.compiler.linking import link_code
    from edgeq.targets.compiler.run_plan import CompiledCode
    from edgeq.targets.toolchain.linkers import find_linker

    model = _model()
    onnx.save(model, tmp_path / "model.onnx")
    compiled = compile_onnx(tmp_path / "model.onnx", target=load_target("host"))
    stored = [weight for weight in compiled.weights if weight.kind == "float"]
    assert [(weight.name, weight.array.shape) for weight in stored] == [("table", (3, WIDTH, 16))]
    assert compiled.inputs[0].maximum == ROWS - 1
    link_code(compiled, tmp_path / "code.so", find_linker(load_target("host")))
    code = CompiledCode(compiled, tmp_path / "code.so")
    for shape in ((1, 1), (3, 11)):
        ids = np.random.default_rng(1).integers(0, ROWS, shape, dtype=np.int64)
        (found,) = code.run([ids])
        expected = ReferenceEvaluator(model).run(None, {"ids": ids})[0]
        assert np.allclose(found, expected, atol=1e-4)
