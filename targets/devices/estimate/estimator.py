"""``edgeq estimate``: the time of each kernel on a processor that is not here, from its machine code.

The bundle runs once in an emulator, which says how often every block of code runs. A model of the processor's
pipeline says how many cycles a block takes. The bytes of the kernel's weights, over the memory's bandwidth, are added.
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import UnsupportedError, UsageError
from edgeq.progress import Progress, silent
from edgeq.targets.builtin.target import ProcessorModel, Target, load_target
from edgeq.targets.bundle.tensor_sets import Call, call_of_encode, call_of_main
from edgeq.targets.devices.estimate.arm32 import is_arm32
from edgeq.targets.devices.estimate.disassembler import disassemble
from edgeq.targets.devices.estimate.emulation import Emulated, counts_by_address, emulate
from edgeq.targets.devices.estimate.machine_code import Block
from edgeq.targets.devices.estimate.memory_traffic import bytes_moved
from edgeq.targets.devices.estimate.processor_model import cycles_of_blocks
from edgeq.targets.devices.estimate.tools import find_llvm
from edgeq.targets.devices.workload import Texts, fitting_sequence, made_up_sources, made_up_texts
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.names import ENCODE, RUNNER_FILE
from edgeq.targets.runtime.schema import Manifest, TargetInfo

MODELLED = 0.995
"""Share of the executed instructions whose blocks are modelled, most executed first. The others get the average."""


@dataclasses.dataclass(frozen=True)
class KernelEstimate:
    """One kernel in one run of the model, on one core.

    Attributes:
        name: Its name.
        calls: How often it runs.
        instructions: Executed in all calls: counted, not estimated.
        cycles: Estimated for these instructions, with all data in the nearest cache.
        bytes: Of its weights that come from memory or a cache that cores share, but no more than its instructions can
            move.
        compute_seconds: The cycles over the clock.
        memory_seconds: The bytes over the bandwidth.
        share: Of the estimated time of all kernels.
    """

    name: str
    calls: int
    instructions: int
    cycles: float
    bytes: int
    compute_seconds: float
    memory_seconds: float
    share: float

    @property
    def seconds(self) -> float:
        """Both together: the model lets no load run ahead of what needs it."""
        return self.compute_seconds + self.memory_seconds


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a bundle would cost. Nothing in it was measured but instructions and bytes.

    Attributes:
        bundle: Path of the bundle.
        compiled_for: Name of the target that it was compiled for.
        target: Name of the target that is estimated.
        processor: What is assumed of it.
        sequence: Tokens in each text, or in the cache before a decoder's step.
        batch: Texts in a call.
        kernels: Longest first.
        modelled: Share of the instructions that the pipeline's model saw.
        tools: Versions of what made the estimate.
        step: Whether the call is a decoder's step.
        source: Tokens of an encoder input that an encoder-decoder has read before the step; 0 for other models.
        reading: Whether the call is the encoder's.
    """

    bundle: str
    compiled_for: str
    target: str
    processor: ProcessorModel
    sequence: int
    batch: int
    kernels: tuple[KernelEstimate, ...]
    modelled: float
    tools: dict[str, str]
    step: bool = False
    source: int = 0
    reading: bool = False

    @property
    def seconds(self) -> float:
        """Estimated time of one run on one core, without what lies between kernels."""
        return sum(kernel.seconds for kernel in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values; ``kind`` says that it is an estimate."""
        kernels = [dataclasses.asdict(kernel) | {"estimated_seconds": kernel.seconds} for kernel in self.kernels]
        table = dataclasses.asdict(self) | {"kernels": kernels, "estimated_seconds": self.seconds}
        return {"kind": "estimate", "threads": 1, **table}


def estimate_bundle(
    bundle: str | Path,
    *,
    target: Target | None = None,
    sequence: int | None = None,
    batch: int = 1,
    reading: bool = False,
    progress: Progress = silent,
) -> Estimate:
    """Estimates the kernels of a bundle.

    Args:
        bundle: A bundle that holds ``edgeq-run``.
        target: The processor to estimate, one that can run the bundle; None takes the one it was compiled for.
        sequence: Tokens in each text; for a decoder those in the cache before the step. None is 128, or as many as
            the model takes.
        batch: Texts in a call.
        reading: Estimate the encoder of an encoder-decoder instead of a decoder step.
        progress: Told after each step.

    Raises:
        UsageError: If there is no bundle, or a number is out of range.
        FormatError: If the bundle is damaged.
        UnsupportedError: If the processor cannot run the bundle, or nothing is known to estimate it by.
        EdgeqError: If a program is missing or fails.
    """
    if batch < 1:
        raise UsageError("batch must be at least 1")
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    sequence = fitting_sequence(manifest, sequence, reading=reading)
    target = target or load_target(manifest.name)
    info, processor = _code_for(folder, manifest, target), _processor(folder, manifest, target)
    texts = (made_up_sources if reading else made_up_texts)(manifest, folder, batch=batch, sequence=sequence)
    llvm = find_llvm()
    verify_files(folder, manifest)
    progress("estimating", 0, 2)
    emulated = emulate(folder, manifest, _call(texts, manifest), target=target)
    progress("estimating", 1, 2)
    code = disassemble(folder / info.code, program=llvm.objdump, target=target)
    blocks = code.blocks(counts_by_address(emulated, code))
    cycles = modelled_cycles(blocks, program=llvm.mca, triple=target.triple, cpu=processor.model)
    weight_bytes = sum(tensor.bytes for tensor in manifest.weights)
    bandwidth = processor.weights_gigabytes_per_second(weight_bytes)
    progress("estimating", 2, 2)
    return Estimate(
        bundle=str(bundle),
        compiled_for=manifest.name,
        target=target.name,
        processor=processor,
        sequence=sequence,
        batch=batch,
        kernels=_kernels(blocks, cycles, emulated, processor, bandwidth=bandwidth, bits32=is_arm32(target.triple)),
        modelled=_work([block for block in blocks if id(block) in cycles]) / max(_work(blocks), 1),
        tools={"llvm-mca": llvm.version, "emulator": emulated.version},
        step=manifest.generation is not None and not reading,
        source=0 if reading else texts.source,
        reading=reading,
    )


def _code_for(folder: Path, manifest: Manifest, target: Target) -> TargetInfo:
    """The code of a bundle that the target runs: the first one that it has all instructions for."""
    least = manifest.targets[-1]
    fitting = [info for info in manifest.targets if set(info.cpu_flags) <= set(target.cpu_flags)]
    if least.architecture == target.architecture and fitting:
        return fitting[0]
    lacking = ", ".join(flag for flag in least.cpu_flags if flag not in target.cpu_flags)
    reason = f"lacks {lacking}" if least.architecture == target.architecture else "is another architecture"
    raise UnsupportedError(
        f"bundle {folder} is for {least.name}, and {target.name} {reason}; compile it for {target.name} first"
    )


def _processor(folder: Path, manifest: Manifest, target: Target) -> ProcessorModel:
    """What is assumed of the target."""
    if RUNNER_FILE not in manifest.files:
        raise UnsupportedError(
            f"bundle {folder} holds no {RUNNER_FILE}, which an estimate runs in an emulator; compile it again"
        )
    if target.estimate is None:
        raise UnsupportedError(
            f"target {target.name} has no [estimate] table, so nothing is known of its pipeline, clock and memory; "
            "measure the bundle with `edgeq profile`, or give a target file that has one"
        )
    return target.estimate


def _call(texts: Texts, manifest: Manifest) -> Call:
    if texts.reading and ENCODE in manifest.functions:
        return call_of_encode(texts.inputs, manifest)
    return call_of_main(texts.inputs, manifest)


def _work(blocks: Sequence[Block]) -> int:
    return sum(block.executed for block in blocks)


def _most_executed(blocks: Sequence[Block]) -> list[Block]:
    enough, chosen, seen = MODELLED * _work(blocks), [], 0
    for block in sorted(blocks, key=lambda block: -block.executed):
        if seen >= enough:
            break
        chosen.append(block)
        seen += block.executed
    return chosen


def modelled_cycles(blocks: Sequence[Block], *, program: str, triple: str, cpu: str) -> dict[int, float]:
    """Returns the cycles of one execution of the most executed blocks, by the block's identity."""
    chosen = _most_executed(blocks)
    with tempfile.TemporaryDirectory(prefix="edgeq-estimate-") as temporary:
        cycles = cycles_of_blocks(chosen, program=program, triple=triple, cpu=cpu, folder=Path(temporary))
    return dict(zip(map(id, chosen), cycles, strict=True))


def _kernels(
    blocks: Sequence[Block],
    cycles: dict[int, float],
    emulated: Emulated,
    processor: ProcessorModel,
    *,
    bandwidth: float | None,
    bits32: bool,
) -> tuple[KernelEstimate, ...]:
    """Adds up the blocks of each kernel.

    Args:
        blocks: All that ran.
        cycles: Of one execution of the modelled ones, by the block's identity.
        emulated: Calls and bytes of the kernels.
        processor: What is assumed of the processor.
        bandwidth: Gigabytes of weights a second, or None if they stay in the core's own cache from run to run.
        bits32: Whether the code is that of 32-bit ARM.
    """
    seen = [block for block in blocks if id(block) in cycles]
    average = sum(cycles[id(block)] * block.executions for block in seen) / max(_work(seen), 1)
    spent: collections.Counter[str] = collections.Counter()
    instructions: collections.Counter[str] = collections.Counter()
    moved: collections.Counter[str] = collections.Counter()
    for block in blocks:
        once = cycles.get(id(block), average * len(block.instructions))
        spent[block.kernel] += once * block.executions  # type: ignore[assignment]
        instructions[block.kernel] += block.executed
        once_moved = sum(bytes_moved(one.text, bits32=bits32) for one in block.instructions)
        moved[block.kernel] += block.executions * once_moved
    known = {kernel["name"]: kernel for kernel in emulated.kernels}
    rows = []
    for name in instructions:
        calls, weight_bytes = (known[name]["calls"], known[name]["weight_bytes"]) if name in known else (0, 0)
        # Of a table only some rows are read.
        size = 0 if bandwidth is None else min(weight_bytes, moved[name])
        compute, memory = spent[name] / (1e9 * processor.gigahertz), size / (1e9 * (bandwidth or 1.0))
        rows.append(KernelEstimate(name, calls, instructions[name], spent[name], size, compute, memory, 0.0))
    whole = sum(row.seconds for row in rows)
    rows = [dataclasses.replace(row, share=row.seconds / whole) for row in rows]
    return tuple(sorted(rows, key=lambda row: -row.seconds))
