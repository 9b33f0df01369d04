"""``estimate``: the estimated latency of a bundle on another processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.console import note, print_json, print_table, progress_bars, say
from edgeq.cli.verb import Json, verb

if TYPE_CHECKING:
    from edgeq.targets.devices.estimate.estimator import KernelEstimate


@verb(
    "estimate",
    example="estimate ./run/bundles/cortex-a72\nestimate ./run/bundles/cortex-a72 --target cortex-a76 --sequence 32",
)
def estimate(
    bundle: Annotated[Path, typer.Argument(help="Bundle for a named target; it runs in an emulator.")],
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="Processor to estimate: a name or a .toml file. Default: the bundle's own target."
        ),
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens in each text; for a decoder, tokens in the cache before the step. "
            "Default: 128, or as many as the model takes.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in one call.")] = 1,
    reading: Annotated[
        bool, typer.Option("--reading", help="Encoder-decoders: estimate the encoder instead of a decoder step.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Estimate the time of each kernel on one core of another processor; nothing is measured.

    Instructions are counted in an emulator. Their cycles come from LLVM's model of the pipeline, and the time of
    memory accesses from the bandwidth in the target file.
    """
    from edgeq.report.text import milliseconds, workload
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.devices.estimate.estimator import estimate_bundle

    with progress_bars() as progress:
        found = estimate_bundle(
            bundle,
            target=load_target(target) if target is not None else None,
            sequence=sequence,
            batch=batch,
            reading=reading,
            progress=progress,
        )
    if as_json:
        print_json(found.to_json())
        return
    columns = ["kernel", "share", "estimate", "calls", "instructions", "per cycle", "memory traffic", "memory time"]
    title = f"ESTIMATE (not measured) of {found.bundle} on {found.target}"
    print_table(columns, [_cells(kernel) for kernel in found.kernels], title=title)
    processor = found.processor
    say(
        f"estimate: about {milliseconds(found.seconds)} for {batch} x {workload(found)} on one core of "
        f"{found.target}, assumed to be {processor.model} at {processor.gigahertz:g} GHz with "
        f"{processor.gigabytes_per_second:g} GB/s and a cache of {processor.cache_megabytes:g} MB"
    )
    note(f"modelled {found.modelled:.1%} of the instructions; {', '.join(found.tools.values())}")


def _cells(kernel: KernelEstimate) -> list[str]:
    from edgeq.report.text import milliseconds

    return [
        kernel.name,
        f"{kernel.share:.1%}",
        f"~{milliseconds(kernel.seconds)}",
        f"{kernel.calls}",
        f"{kernel.instructions:,}",
        f"{kernel.instructions / kernel.cycles:.2f}" if kernel.cycles else "-",
        f"{kernel.bytes / 1e6:.2f} MB",
        f"~{milliseconds(kernel.memory_seconds)}",
    ]
