"""Relax to virtual machine code: TVM's pipeline, then a pass that leaves out what need not happen at every call.

A model of twelve layers spends more instructions on shapes and tensors than on kernels: the same shape is made again
for every use, a tensor is made for every result although the memory behind it was planned once, and each is dropped
singly. With one token at a time that would be a good part of the whole time.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

_MADE_ONCE = frozenset({"vm.builtin.make_shape", "relax.vm.alloc_tensor"})
"""Calls that give the same when their arguments are the same: sizes are known from the start of a function on, and
a tensor is a place in a storage."""
_CHECKS = frozenset({"vm.builtin.check_tensor_info", "vm.builtin.match_shape"})
_DROP = "relax.vm.kill_object"


def vm_pipeline(weights: int) -> tvm.transform.Pass:
    """Returns the passes that turn Relax functions into code for the virtual machine.

    Args:
        weights: How many parameters at the end of each function are weights. Their sizes are constants, which every
            kernel that reads them checks, so that the function need not.
    """

    @tvm.transform.module_pass(opt_level=0, name="edgeq.vm_pipeline")
    def lower(module: tvm.IRModule, context: Any) -> tvm.IRModule:
        del context
        module = relax.get_pipeline("default")(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                module[name] = _without_repetitions(function, weights)
        return module

    return lower


def _without_repetitions(function: relax.Function, weights: int) -> relax.Function:
    known = set(function.params[len(function.params) - weights :])
    kept: list[tuple[Any, Any]] = []
    first: dict[tuple[Any, ...], Any] = {}
    replaced: dict[Any, Any] = {}
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        value = _renamed(binding.value, replaced)
        name = _callee(value)
        if name == _DROP or (name in _CHECKS and value.args[0] in known):
            continue
        if name in _MADE_ONCE:
            key = (name, *(a if isinstance(a, relax.Var) else str(a) for a in value.args))
            if key in first:
                replaced[binding.var] = first[key]
                continue
            first[key] = binding.var
        kept.append((binding.var, value))
    result = _renamed(function.body.body, replaced)
    block = relax.BindingBlock([relax.VarBinding(var, value) for var, value in _used(kept, result)])
    body = relax.SeqExpr([block], result)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _used(bindings: list[tuple[Any, Any]], result: Any) -> list[tuple[Any, Any]]:
    """Leaves out tuples that nobody reads."""
    read = set(_variables(result))
    kept = []
    for var, value in reversed(bindings):
        if isinstance(value, relax.Tuple) and var not in read:
            continue
        read.update(_variables(value))
        kept.append((var, value))
    return kept[::-1]


def _callee(value: Any) -> str:
    """Name of the operator or packed function that is called, or an empty string."""
    if not isinstance(value, relax.Call):
        return ""
    return str(getattr(value.op, "global_symbol", None) or getattr(value.op, "name", ""))


def _renamed(value: Any, replaced: dict[Any, Any]) -> Any:
    """``value`` with every variable replaced; lowered code nests nothing but arguments."""
    if isinstance(value, relax.Var):
        return replaced.get(value, value)
    if isinstance(value, relax.Call):
        arguments = [replaced.get(a, a) if isinstance(a, relax.Var) else a for a in value.args]
        return relax.Call(value.op, arguments, value.attrs, value.ty_args, value.span, value.ty)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([_renamed(field, replaced) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_renamed(value.tuple_value, replaced), value.index)
    return value


def _variables(value: Any) -> list[Any]:
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.Call):
        return [a for a in value.args if isinstance(a, relax.Var)]
    if isinstance(value, relax.Tuple):
        return [var for field in value.fields for var in _variables(field)]
    if isinstance(value, relax.TupleGetItem):
        return _variables(value.tuple_value)
    return []
