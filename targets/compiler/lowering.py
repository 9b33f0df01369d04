"""Relax to kernels and plans: what TVM's own pipeline does up to the calls, and then no virtual machine.

After :func:`lower` a function is a straight line of bindings: memory that is allocated, kernels that are called on it,
views and tuples. :func:`make_plan` writes down what remains when the names are gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.kernels.gather_rows import rows_read
from edgeq.targets.compiler.workspace import ALIGNMENT, dimensions, workspaces
from edgeq.targets.runtime.plan import Expression, Plan, PlanStep, PlanTensor, PlanView

_ALLOCATION = "relax.builtin.alloc_tensor"
_VIEW = "relax.reshape"
_WITH_SIZES = "relax.vm.call_tir_dyn"
"""Calls a kernel whose last arguments are sizes."""
_OPERATORS = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.FloorDiv: "/",
    tirx.FloorMod: "%",
    tirx.Min: "min",
    tirx.Max: "max",
}


def lower(module: tvm.IRModule) -> tvm.IRModule:
    """Returns the module with every operator as a call of a kernel on memory that is allocated before it."""
    return tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(),
            relax.transform.RewriteDataflowReshape(),
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
        ]
    )(module)


def kernels_of(module: tvm.IRModule, plans: Mapping[str, Plan], prefix: str = "") -> tvm.IRModule:
    """Returns a module with the kernels that the plans call, each under its name with ``prefix`` before it."""
    called = {step.kernel for plan in plans.values() for step in plan.steps}
    kernels = {var.name_hint: function for var, function in module.functions_items()}
    symbols = {name: prefix + name for name in sorted(called)}
    return tvm.IRModule({symbol: kernels[name].with_attr("global_symbol", symbol) for name, symbol in symbols.items()})


class Constants:
    """Constants of the functions, which a runtime takes as further weights.

    Args:
        first: Number of the first: how many weights there are before them.
    """

    def __init__(self, first: int) -> None:
        self.arrays: list[np.ndarray] = []
        self._first = first
        self._numbers: dict[tuple[Any, ...], int] = {}

    def argument(self, constant: tvm.ir.GenericConst) -> str:
        """Returns the argument that stands for a constant; equal ones are stored once."""
        array = constant.value.numpy()
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._numbers:
            self._numbers[key] = self._first + len(self.arrays)
            self.arrays.append(array)
        return f"w{self._numbers[key]}"


@dataclasses.dataclass
class _Entry:
    """A tensor of the plan while it is made; ``of`` is None for memory of the arena."""

    dtype: str
    shape: tuple[Expression, ...]
    of: str | None = None
    first: int | None = None
    last: int | None = None


class _PlanMaker:
    """Walks over the bindings of one lowered function.

    Args:
        module: The module of the function.
        parameters: The argument that stands for each parameter.
        names: Name of a dimension by its name in the function, where they differ.
        constants: Takes the function's constants.
    """

    def __init__(
        self, module: tvm.IRModule, parameters: dict[Any, str], names: Mapping[str, str], constants: Constants
    ) -> None:
        self._module = module
        self._values: dict[Any, Any] = dict(parameters)
        self._names = names
        self._constants = constants
        self._analyzer = tvm.sym.Analyzer()
        self._entries: list[_Entry] = []
        self._steps: list[PlanStep] = []
        self._dims: set[str] = set()

    def make(self, body: relax.SeqExpr) -> Plan:
        """Returns the plan.

        Raises:
            UnsupportedError: If a binding is none of those that lowering leaves.
        """
        for binding in (binding for block in body.blocks for binding in block.bindings):
            self._values[binding.var] = self._value(binding.value)
        # State is changed in place, so that nobody needs it as an output as well.
        outputs = tuple(output for output in self._value(body.body) if not output.startswith("s"))
        for output in outputs:
            self._use(output, len(self._steps))
        return self._without_unused(outputs)

    def _value(self, value: Any) -> Any:
        """What a variable stands for: an argument, a tuple of values, or None for the result of a kernel."""
        if isinstance(value, relax.Var):
            return self._values[value]
        if isinstance(value, tvm.ir.GenericConst):
            return self._constants.argument(value)
        if isinstance(value, relax.Tuple):
            return tuple(self._value(field) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value)[value.index]
        if isinstance(value, relax.Call):
            return self._call(value)
        raise UnsupportedError(f"the lowered model holds a {type(value).__name__}, which no plan can say")

    def _call(self, call: relax.Call) -> Any:
        if isinstance(call.op, relax.GlobalVar):
            return self._step(call.op, list(call.args))
        name = str(call.op.name)
        if name == _ALLOCATION:
            return self._add(_Entry(str(call.args[1].value), self._sizes(call.args[0])))
        if name == _VIEW:
            of, sizes = self._value(call.args[0]), self._sizes(call.args[1])
            return self._add(_Entry(str(call.ty.dtype), sizes, of))
        if name == _WITH_SIZES:
            *tensors, sizes = call.args[1].fields
            return self._step(call.args[0], [*tensors, *sizes.values])
        raise UnsupportedError(f"the lowered model calls {name!r}, which no plan can say")

    def _step(self, kernel: tvm.ir.GlobalVar, given: list[Any]) -> None:
        arguments = [self._argument(value) for value in given]
        for argument in arguments:
            self._use(argument, len(self._steps))
        function = self._module[kernel]
        rows = rows_read(function)
        if rows is not None and not str(arguments[rows.table]).startswith("w"):
            rows = None  # of a tensor that another step makes
        workspace = self._workspace(function, given)
        self._steps.append(PlanStep(kernel.name_hint, tuple(arguments), workspace, rows))

    def _argument(self, value: Any) -> str | tuple[Expression]:
        return (self._expression(value),) if tvm.ir.is_prim_expr(value) else self._value(value)

    def _workspace(self, kernel: tirx.PrimFunc, given: list[Any]) -> Expression:
        """Bytes that a thread needs while it runs a task of the kernel, all buffers at once."""
        bound: dict[Any, Any] = {}
        for shape, value in zip(dimensions(kernel), given, strict=True):
            pairs = zip(shape, value.ty.shape, strict=True) if shape else ()
            bound |= {own: size for own, size in pairs if tvm.ir.is_prim_var(own)}
        words: list[str] = []
        for shape, item in workspaces(kernel):
            bytes_ = [str(item)]
            for size in shape:
                bytes_ += [*self._postfix(self._analyzer.simplify(tirx.convert(size)), bound), "*"]
            bytes_ += [str(ALIGNMENT - 1), "+", str(ALIGNMENT), "/", str(ALIGNMENT), "*"]
            words += [*bytes_, "+"] if words else bytes_
        return " ".join(words) if words else 0

    def _add(self, entry: _Entry) -> str:
        self._entries.append(entry)
        return f"t{len(self._entries) - 1}"

    def _use(self, argument: Any, step: int) -> None:
        """Notes that a step reads or writes a tensor."""
        while isinstance(argument, str) and argument.startswith("t"):
            entry = self._entries[int(argument[1:])]
            entry.first = step if entry.first is None else entry.first
            entry.last = step
            argument = entry.of

    def _without_unused(self, outputs: tuple[str, ...]) -> Plan:
        """Leaves out tensors that no step touches, and numbers the others."""
        numbers: dict[str, str] = {}
        tensors: list[PlanTensor | PlanView] = []
        for number, entry in enumerate(self._entries):
            if entry.first is None or entry.last is None:
                continue
            numbers[f"t{number}"] = f"t{len(tensors)}"
            if entry.of is None:
                tensors.append(PlanTensor(entry.dtype, entry.shape, entry.first, entry.last))
            else:
                tensors.append(PlanView(numbers.get(entry.of, entry.of), entry.dtype, entry.shape))
        steps = [
            dataclasses.replace(step, args=tuple(numbers.get(a, a) if isinstance(a, str) else a for a in step.args))
            for step in self._steps
        ]
        return Plan(
            tuple(sorted(self._dims)), tuple(tensors), tuple(steps), tuple(numbers.get(o, o) for o in outputs)
        )

    def _sizes(self, shape: Any) -> tuple[Expression, ...]:
        return tuple(self._expression(size) for size in shape.values)

    def _expression(self, value: Any) -> Expression:
        simple = self._analyzer.simplify(tirx.convert(value))
        if isinstance(simple, tirx.IntImm):
            return int(simple.value)
        return " ".join(self._postfix(simple, {}))

    def _postfix(self, value: Any, bound: dict[Any, Any]) -> list[str]:
        if value in bound:
            return self._postfix(bound[value], {})
        if isinstance(value, tirx.IntImm):
            return [str(int(value.value))]
        if isinstance(value, tirx.Var):
            name = self._names.get(value.name, value.name)
            self._dims.add(name)
            return [name]
        operator = _OPERATORS.get(type(value))
        if operator is None:
            raise UnsupportedError(f"the size {value} of a tensor is none that a plan can say")
        return [*self._postfix(value.a, bound), *self._postfix(value.b, bound), operator]


def make_plan(
    module: tvm.IRModule, name: str, *, inputs: int, state: int, names: Mapping[str, str], constants: Constants
) -> Plan:
    """Returns the plan of a lowered function, which takes inputs, its state and weights and returns a tuple.

    Args:
        module: What :func:`lower` returned.
        name: Name of the function.
        inputs: How many inputs.
        state: How many tensors of state.
        names: Name of a dimension by its name in the function, where they differ.
        constants: Takes the function's constants.

    Raises:
        UnsupportedError: If the function does something that no plan can say.
    """
    function = module[name]
    kinds = [("i", number) for number in range(inputs)] + [("s", number) for number in range(state)]
    kinds += [("w", number) for number in range(len(function.params) - len(kinds))]
    parameters = {var: f"{kind}{number}" for var, (kind, number) in zip(function.params, kinds, strict=True)}
    return _PlanMaker(module, parameters, names, constants).make(function.body)
