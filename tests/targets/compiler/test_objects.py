"""Equal kernels are compiled once, however many models have them, and no others are taken for them."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.compiler import objects
from edgeq.targets.compiler.tvm_import import import_tvm

HOST, OTHER = load_target("x86-64-v3"), load_target("cortex-a72")


def module(number: float = 0.1, name: str = "times") -> Any:
    """A module of one kernel, which multiplies by a number; built anew at each call."""
    tvm = import_tvm()
    from edgeq.targets.compiler.kernels.elementwise import scaled

    return tvm.IRModule({name: scaled(number, 16, rank=1).with_attr("global_symbol", name)})


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that are really compiled from now on."""
    seen: list[Any] = []
    real = objects._compile
    monkeypatch.setattr(objects, "_compiled", {})
    monkeypatch.setattr(objects, "_compile", lambda kernel, target: seen.append(kernel) or real(kernel, target))
    return seen


def test_an_equal_kernel_is_compiled_once(compiled: list[Any]) -> None:
    first, second = (objects.compile_kernels(module(), HOST) for _ in range(2))
    assert first == second
    assert list(first) == ["times"]
    assert first["times"].startswith(b"\x7fELF")
    assert len(compiled) == 1


def test_the_memory_is_bounded(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_MOST", 2)
    for number in (0.1, 0.2, 0.3):
        objects.compile_kernels(module(number), HOST)
        assert len(objects._compiled) <= 2


@pytest.mark.parametrize(
    ("other", "target"), [({"number": 0.1 + 1e-8}, HOST), ({"name": "twice"}, HOST), ({}, OTHER)]
)
def test_a_kernel_that_differs_is_compiled(other: dict[str, Any], target: Target, compiled: list[Any]) -> None:
    first = objects.compile_kernels(module(), HOST)
    assert list(objects.compile_kernels(module(**other), target).values()) != list(first.values())
    assert len(compiled) == 2
