"""``profile``: how fast a bundle is, here beside ONNX Runtime or on the device it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError
from edgeq.formats.stored import onnx_graphs

_On = Annotated[
    str | None,
    typer.Option(
        help="Measure on a device: ssh://user@host:port/folder, of which only the host is needed. The bundle is copied "
        "there (only changed files), its golden output is checked, and then it is timed."
    ),
]
_SshConfig = Annotated[Path | None, typer.Option(help="With --on: configuration file for ssh instead of your own.")]
_FloatOnnx = Annotated[
    Path | None,
    typer.Option(help="ONNX folder of the float model, for the baselines. Default: that of the run around it."),
]
_Rounds = Annotated[
    int,
    typer.Option(
        min=1, help="Rounds of bundle and baselines in turns; a speed-up needs at least 6. With --on: timed calls."
    ),
]


@verb(
    "profile",
    example="profile ./run/bundles/host\nprofile ./bundle --float-onnx ./my-bert-float-onnx --sequence 32\n"
    "profile ./run/bundles/cortex-a72 --on ssh://pi@192.168.1.7 --threads 4",
)
def profile(
    bundle: Annotated[Path, typer.Argument(help="Bundle for this machine, or for the one named by --on.")],
    *,
    on: _On = None,
    ssh_config: _SshConfig = None,
    float_onnx: _FloatOnnx = None,
    sequence: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens in each text; for a decoder, tokens in the cache before the timed step. "
            "Default: 128, or as many as the model takes.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in one call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the bundle and of the baselines.")] = 2,
    rounds: _Rounds = 30,
    reading: Annotated[
        bool, typer.Option("--reading", help="Encoder-decoders: time the encoder instead of a decoder step.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the latency of a bundle beside ONNX Runtime float32 and dynamic int8, in turns; or on a device."""
    from edgeq.report.text import profile_lines
    from edgeq.targets.devices.profiler import profile_bundle
    from edgeq.targets.devices.remote.address import parse_address
    from edgeq.targets.devices.remote.profile import profile_on_device

    if on is not None and float_onnx is not None:
        raise UsageError("--float-onnx is measured on this machine only; leave it or --on out")
    if on is None and ssh_config is not None:
        raise UsageError("--ssh-config belongs to --on; name the device, such as --on ssh://pi@192.168.1.7")
    same: dict[str, Any] = {"sequence": sequence, "batch": batch, "threads": threads}
    with progress_bars() as progress:
        if on is not None:
            address = parse_address(on)
            remote = profile_on_device(
                bundle, address, runs=rounds, reading=reading, ssh_config=ssh_config, progress=progress, **same
            )
            measured, table, more = remote.profile, remote.to_json(), remote.lines()
        else:
            graph = float_onnx or _float_onnx_of_run(bundle)
            measured = profile_bundle(
                bundle, float_onnx=graph, rounds=rounds, reading=reading, progress=progress, **same
            )
            table, more = measured.to_json(), []
    if as_json:
        print_json(table)
    else:
        for line in [*profile_lines(measured), *more]:
            say(line)


def _float_onnx_of_run(bundle: Path) -> Path | None:
    """``RUN/float-onnx`` for a bundle at ``RUN/bundles/NAME``."""
    candidate = bundle.absolute().parent.parent / "float-onnx"
    return candidate if onnx_graphs(candidate) else None
