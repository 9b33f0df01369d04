"""Relax functions to plans: what each line says, how long a tensor lives, and that the plan gives the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.compile import CompiledFunction, CompiledModel, TensorInfo, compile_module
from edgeq.targets.compiler.linking import link_code
from edgeq.targets.compiler.run_plan import CompiledCode, evaluate
from edgeq.targets.compiler.tvm_import import import_tvm
from edgeq.targets.runtime.plan import PlanStep, PlanTensor, PlanView
from edgeq.targets.toolchain.linkers import find_linker

LAYERS = 4


def compiled(build, rows: tuple[int | str, ...] = ("rows", 5)) -> CompiledModel:
    """Compiles a function of ``x`` and a weight ``w [5]``, whose body ``build(relax, builder, x, w)`` gives."""
    import_tvm()
    from tvm import relax, tirx

    from edgeq.targets.compiler.importer import WeightTensor

    builder, sizes = relax.BlockBuilder(), {}
    shape = [sizes.setdefault(size, tirx.Var(size, "int64")) if isinstance(size, str) else size for size in rows]
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    w = relax.Var("w", relax.TensorType([5], "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            outputs = builder.emit_output(relax.Tuple(build(relax, builder, x, w)))
        builder.emit_func_output(outputs)
    weights = [WeightTensor("w", np.arange(5, dtype=np.float32))]
    outputs = [TensorInfo(f"y{number}", "float32", ()) for number in range(4)]
    function = CompiledFunction([TensorInfo("x", "float32", rows)], outputs, [])
    return compile_module(builder.get(), {"main": function}, weights, load_target("host"))


def run(model: CompiledModel, folder, x: np.ndarray) -> list[np.ndarray]:
    link_code(model, folder / "code.so", find_linker(load_target("host")))
    return CompiledCode(model, folder / "code.so").run([x])


def chain(relax, builder, x, w):
    """``y = (x + w) + w ...`` and its last sum twice."""
    y = x
    for _ in range(LAYERS):
        y = builder.emit(relax.op.add(y, w))
    return [y, builder.emit(relax.op.add(y, y))]


def test_a_plan_is_the_kernels_in_order_and_the_life_of_every_tensor(tmp_path):
    model = compiled(chain)
    plan = model.plans["main"]
    sums = [PlanStep("add", ("i0" if n == 0 else f"t{n - 1}", "w0", f"t{n}")) for n in range(LAYERS)]
    assert plan.steps == (*sums, PlanStep("add1", ("t3", "t3", "t4")))
    lives = [(0, 1), (1, 2), (2, 3), (3, 5), (4, 5)]
    assert plan.tensors == tuple(PlanTensor("float32", ("rows", 5), *life) for life in lives)
    assert (plan.dims, plan.outputs) == (("rows",), ("t3", "t4"))
    assert len(model.outputs) == 2
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    expected = x.copy()
    for _ in range(LAYERS):
        expected = expected + np.arange(5, dtype=np.float32)
    found = run(model, tmp_path, x)
    assert np.array_equal(found[0], expected)
    assert np.array_equal(found[1], expected + expected)


def test_views_constants_and_inputs_that_are_handed_through(tmp_path):
    def build(relax, builder, x, w):
        flat = builder.emit(relax.op.reshape(x, [x.ty.shape[0] * 5]))
        constant = relax.const(np.float32([2.5]), "float32")
        first = builder.emit(relax.op.multiply(flat, constant))
        second = builder.emit(relax.op.reshape(first, [5, x.ty.shape[0]]))
        return [second, x, builder.emit(relax.op.add(flat, constant))]

    model = compiled(build)
    plan = model.plans["main"]
    assert plan.tensors[0] == PlanView("i0", "float32", ("rows 5 *",))
    assert [weight.name for weight in model.weights] == ["w", "constant.0"]  # equal constants are stored once
    assert model.weights[1].kind == "constant"
    written = [tensor for tensor in plan.tensors if isinstance(tensor, PlanTensor)]
    assert [(tensor.first, tensor.last) for tensor in written] == [(0, 2), (1, 2)]  # a view lengthens a life
    x = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    first, second, third = run(model, tmp_path, x)
    assert np.array_equal(first, (x.reshape(-1) * np.float32(2.5)).reshape(5, 3))
    assert np.array_equal(second, x)
    assert np.array_equal(third, x.reshape(-1) + np.float32(2.5))


def test_sizes_that_a_kernel_takes_as_numbers_are_expressions(tmp_path):
    def build(relax, builder, x, w):
        return [builder.emit(relax.op.concat([x, builder.emit(relax.op.strided_slice(x, [0], [1], [2]))], axis=0))]

    model = compiled(build, rows=("rows", 5))
    (size, _), _ = (tensor.shape for tensor in model.plans["main"].tensors)
    assert [evaluate(size, {"rows": rows}) for rows in (1, 2, 9)] == [0, 1, 1]
    x = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)
    assert np.array_equal(run(model, tmp_path, x)[0], np.concatenate([x, x[1:2]]))


def test_what_no_plan_can_say_is_named():
    def build(relax, builder, x, w):
        shape = builder.emit(relax.op.shape_of(x))
        return [builder.emit(relax.op.shape_to_tensor(shape))]

    with pytest.raises(UnsupportedError, match="which no plan can say"):
        compiled(build)


@pytest.fixture(scope="module")
def gpt2_plan(gpt2_onnx):
    from edgeq.targets.compiler.compile import compile_folder

    return compile_folder(gpt2_onnx, target=load_target("host")).plans["main"]


def test_kernels_that_read_rows_of_a_table_say_which(gpt2_plan):
    """Those of tokens and of positions; the output's product reads the whole of the same table."""
    reading = [step for step in gpt2_plan.steps if step.rows is not None]
    tables = [step.args[step.rows.table] for step in reading]
    assert len(reading) == len(set(tables)) == 2
    assert all(table.startswith("w") for table in tables)
    assert reading[0].args[reading[0].rows.ids] == "i0"
    assert [step.rows.tile for step in reading] == [16, 1]  # packed, and float
    others = [step for step in gpt2_plan.steps if step.rows is None and tables[0] in step.args]
    assert [step.kernel.startswith("low_bit_matmul") for step in others] == [True]
    (table,) = [step for step in gpt2_plan.to_table()["steps"] if tables[0] in step["args"] and "rows" in step]
    assert table["rows"] == {"ids": 0, "table": 1, "tile": 16}


def test_attention_says_how_much_memory_a_thread_needs(gpt2_plan):
    plan = gpt2_plan
    needed = {step.kernel: step.workspace for step in plan.steps}
    assert needed["add"] == 0
    (name,) = [name for name in needed if name.startswith("append_and_attend")]
    dims = {"context_blocks": 3, "context": 48, "batch": 2, "sequence": 5}
    assert evaluate(needed[name], dims) == 4 * 48 * int(_rows_of_scores(needed[name]))


def _rows_of_scores(expression) -> int:
    """The only number of the expression that is neither an element's size, a vector's length nor the rounding.

    Each of these stands there once (64 twice); a tile of AVX2 has as many rows as an element has bytes.
    """
    numbers = [int(word) for word in str(expression).split(" ") if word.isdigit()]
    for known in (4, 16, 63, 64, 64):
        numbers.remove(known)
    return numbers[0] if numbers else 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [(7, 7), ("batch 3 *", 6), ("sequence 15 + 16 / 16 *", 16), ("sequence 16 %", 5), ("batch sequence min", 2),
     ("batch sequence max 1 -", 4), ("-3 2 /", -2)],
)  # fmt: skip
def test_expressions(expression, value):
    assert evaluate(expression, {"batch": 2, "sequence": 5}) == value


@pytest.mark.parametrize("expression", ["", "batch +", "batch 2", "unknown", "batch 0 /", "batch  2 *"])
def test_expressions_that_are_none(expression):
    with pytest.raises(FormatError, match="is no expression"):
        evaluate(expression, {"batch": 2})


def test_a_plan_as_plain_values():
    model = compiled(chain)
    table = model.plans["main"].to_table()
    assert table["tensors"][0] == {"dtype": "float32", "shape": ["rows", 5], "first": 0, "last": 1}
    assert table["steps"][0] == {"kernel": "add", "args": ["i0", "w0", "t0"]}
    number = dataclasses.replace(model.plans["main"], steps=(PlanStep("k", ("i0", ("rows 2 *",)), "rows 64 *"),))
    expected = {"kernel": "k", "args": ["i0", {"int": "rows 2 *"}], "workspace": "rows 64 *"}
    assert number.to_table()["steps"] == [expected]
