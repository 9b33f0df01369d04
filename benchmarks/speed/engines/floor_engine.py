"""The floor: the machine's integer units doing as many multiply-accumulates as the model has, on operands at hand.

Not an engine but a limit. It reads nothing, unpacks nothing and adds no row up; no engine can be faster on int8.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from turns import Call, Restore, nothing, serve


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of the loop; ``variant`` is the number of multiply-accumulates and the target, ``11e9@host``."""
    os.environ["TVM_NUM_THREADS"] = str(request["threads"])  # read when tvm makes its pool
    import tvm

    from benchmarks.kernels.peaks import STEPS, integer_peak
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.compiler.isa import isa_named
    from edgeq.targets.compiler.objects import PASS_OPTIONS

    wanted, _, name = request["variant"].partition("@")
    target = load_target(name)
    isa = isa_named(target.isa)
    steps = max(1, round(STEPS * int(wanted) / integer_peak(isa, request["threads"]).work))
    peak = integer_peak(isa, request["threads"], steps=steps)
    module = tvm.IRModule({"main": peak.function.with_attr("global_symbol", "main")})
    with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        run = tvm.compile(module, target=tvm.target.Target(target.tvm_target))["main"]
    tensors = [tvm.runtime.tensor(array) for array in peak.arrays]

    def loop() -> np.ndarray:
        run(*tensors)
        return np.zeros(1)

    return loop, nothing


if __name__ == "__main__":
    serve(load)
