"""Multiplications that an emulator counts in the matrix kernels of an ARM bundle, beside those that there must be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.tensor_sets import call_of_main
from edgeq.targets.devices.estimate.disassembler import disassemble
from edgeq.targets.devices.estimate.emulation import counts_by_address, emulate
from edgeq.targets.devices.estimate.tools import find_llvm
from edgeq.targets.devices.workload import made_up_texts
from edgeq.targets.runtime.manifest import read_manifest

_KERNEL = re.compile(r"low_bit_matmul_(\d+)x(\d+)_")
_PRODUCTS = {"neon": ("smull", 8), "neon_dotprod": ("sdot", 16), "neon_armv7": ("vmull.s8", 8)}
"""The instruction that multiplies codes and activations, and how many multiplications it does."""
_LANES = 16


def counted_products(bundle: Path, *, sequence: int) -> list[dict[str, Any]]:
    """Returns a row for each low-bit matmul: multiplications counted, and rows x outputs x inputs.

    Args:
        bundle: An encoder's bundle for an ARM target whose matrices have whole vectors.
        sequence: Rows of each product.
    """
    manifest = read_manifest(bundle)
    target = load_target(manifest.name)
    name, width = _PRODUCTS[target.isa]
    texts = made_up_texts(manifest, bundle, batch=1, sequence=sequence)
    emulated = emulate(bundle.absolute(), manifest, call_of_main(texts.inputs, manifest), target=target)
    code = disassemble(bundle / manifest.targets[0].code, program=find_llvm().objdump, target=target)
    blocks = code.blocks(counts_by_address(emulated, code))
    rows = []
    for kernel in emulated.kernels:
        sizes = _KERNEL.match(kernel["name"])
        if sizes is None:
            continue
        own = [block for block in blocks if block.kernel == kernel["name"]]
        multiply = sum(
            block.executions * sum(one.text.split()[0] in (name, f"{name}2") for one in block.instructions)
            for block in own
        )
        outputs = -(-int(sizes[1]) // _LANES) * _LANES
        known = kernel["calls"] * sequence * outputs * int(sizes[2])
        executed = sum(block.executed for block in own)
        rows.append(
            {
                "target": target.name,
                "kernel": kernel["name"],
                "instructions": executed,
                "counted": multiply * width,
                "known": known,
                "ratio": multiply * width / known,
                "instructions_a_product_instruction": executed / multiply,
            }
        )
    return rows
