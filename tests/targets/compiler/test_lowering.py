"""The virtual machine's code: nothing is made twice, and results are those of TVM's own pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.targets.compiler.tvm_import import import_tvm

LAYERS = 4


@pytest.fixture(scope="module")
def module():
    """Some kernels in a row, so that planned memory is used again: ``y = (x + w) + w ...`` and its last sum twice."""
    tvm = import_tvm()
    from tvm import relax, tirx

    builder = relax.BlockBuilder()
    rows = tirx.Var("rows", "int64")
    x = relax.Var("x", relax.TensorType([rows, 5], "float32"))
    w = relax.Var("w", relax.TensorType([5], "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = x
            for _ in range(LAYERS):
                y = builder.emit(relax.op.add(y, w))
            outputs = builder.emit_output(relax.Tuple([y, builder.emit(relax.op.add(y, y))]))
        builder.emit_func_output(outputs)
    return tvm, builder.get()


def compiled(module, **options):
    tvm, ir = module
    return tvm.compile(ir, target=tvm.target.Target({"kind": "llvm"}), **options)


def lines(executable) -> list[str]:
    """Instructions of ``main``, without the register that each writes."""
    return [line.split("dst:")[0].strip() for line in executable.as_text().splitlines() if "  call " in line]


def test_nothing_is_made_twice_and_weights_are_not_checked(module):
    from edgeq.targets.compiler.lowering import vm_pipeline

    before, after = lines(compiled(module)), lines(compiled(module, relax_pipeline=vm_pipeline(1)))
    made = [line for line in after if "make_shape" in line or "alloc_tensor" in line]
    assert len(made) == len(set(made))
    assert sum("check_tensor_info" in line for line in before) == 2
    assert sum("check_tensor_info" in line for line in after) == 1
    assert not any("null_value" in line for line in after)
    assert len(after) < len(before) * 0.6


def test_results_are_the_same(module):
    from tvm import relax

    from edgeq.targets.compiler.lowering import vm_pipeline

    tvm, _ = module
    x, w = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32), np.ones(5, np.float32)
    found = []
    for options in ({}, {"relax_pipeline": vm_pipeline(1)}):
        machine = relax.VirtualMachine(compiled(module, **options), tvm.cpu())
        found.append([y.numpy() for y in machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w))])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    expected = x.copy()
    for _ in range(LAYERS):
        expected = expected + w
    assert np.array_equal(found[1][0], expected)
    assert np.array_equal(found[1][1], expected + expected)
