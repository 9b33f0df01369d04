"""``edgeq profile --on``: a bundle measured on the device it is for, once its golden output has come out there."""

from __future__ import annotations

import dataclasses
import datetime
import json
import secrets
import statistics
from pathlib import Path
from typing import Any

import edgeq
from edgeq.errors import EdgeqError, UnsupportedError, UsageError
from edgeq.progress import Progress, silent
from edgeq.results import Profile
from edgeq.targets.bundle.tensor_sets import call_of_encode, call_of_main, encode_calls
from edgeq.targets.devices.profiler import EDGEQ, ORT_FLOAT32, ORT_INT8, operators_of
from edgeq.targets.devices.remote.address import Address
from edgeq.targets.devices.remote.connection import Connection
from edgeq.targets.devices.remote.copying import Copied, copy_bundle
from edgeq.targets.devices.remote.device import Device, check_device, read_device
from edgeq.targets.devices.timing import summarize
from edgeq.targets.devices.workload import Texts, fitting_sequence, made_up_sources, made_up_texts
from edgeq.targets.runtime.kernel_times import KernelTime
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import ENCODE, RUNNER_FILE
from edgeq.targets.runtime.schema import Manifest


@dataclasses.dataclass(frozen=True)
class RemoteReport:
    """A profile made on a device.

    Attributes:
        profile: Latencies and kernels; baselines are not measured there.
        device: Its address.
        golden: What the self-test said.
        peak_bytes: Most memory that the process had, weights included; 0 where the device does not say.
        celsius: Hottest sensor before and after, in degrees; None where none can be read.
        sent_files: Names of the files that had to be copied.
        sent_bytes: Their sizes in all.
        kept_bytes: Sizes of the files that were there already.
    """

    profile: Profile
    device: str
    golden: str
    peak_bytes: int
    celsius: tuple[float | None, float | None]
    sent_files: tuple[str, ...]
    sent_bytes: int
    kept_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Returns the profile as plain JSON values, with what is known of the device beside it."""
        table = dataclasses.asdict(self)
        return self.profile.to_json() | {"device": {key: table[key] for key in table if key != "profile"}}

    def lines(self) -> list[str]:
        """Returns what a profile has no line for."""
        before, after = (f"{value:.1f} degrees" if value is not None else "not readable" for value in self.celsius)
        sent = f"{len(self.sent_files)} files, {self.sent_bytes / 1e6:.2f} MB" if self.sent_files else "nothing"
        return [
            f"  on {self.device}: {self.golden}",
            f"  peak memory {self.peak_bytes / 1e6:.1f} MB, temperature before {before}, after {after}",
            f"  copied {sent}; {self.kept_bytes / 1e6:.2f} MB were there",
        ]


def profile_on_device(
    bundle: str | Path,
    address: Address,
    *,
    sequence: int | None = None,
    batch: int = 1,
    threads: int = 2,
    runs: int = 30,
    reading: bool = False,
    ssh_config: Path | None = None,
    progress: Progress = silent,
) -> RemoteReport:
    """Copies a bundle to a device, checks its golden output there and measures it.

    Args:
        bundle: A bundle that holds ``edgeq-run``.
        address: The device.
        sequence: As for :func:`edgeq.targets.devices.profiler.profile_bundle`.
        batch: Texts in a call.
        threads: Threads of the kernels.
        runs: Calls that are timed, after one that is not.
        reading: Time the encoder of an encoder-decoder instead of a decoder step.
        ssh_config: Configuration file for ssh in place of the user's own.
        progress: Told how much has been copied, and which step is done.

    Raises:
        UsageError: If there is no bundle, or a number is out of range.
        FormatError: If the bundle is damaged.
        UnsupportedError: If the bundle is not for that device.
        EdgeqError: If the device cannot be reached, a step fails there, or the golden output differs.
    """
    if min(batch, threads, runs) < 1:
        raise UsageError("batch, threads and rounds must be at least 1")
    folder = Path(bundle)
    manifest = read_manifest(folder)
    sequence = fitting_sequence(manifest, sequence, reading=reading)
    if RUNNER_FILE not in manifest.files:
        raise UnsupportedError(
            f"bundle {folder} holds no {RUNNER_FILE}; compile it again"
        )
    texts = (made_up_sources if reading else made_up_texts)(manifest, folder, batch=batch, sequence=sequence)
    with Connection(address, config=ssh_config) as connection:
        before = read_device(connection)
        check_device(before, manifest.targets[-1], place=str(address))
        copied = copy_bundle(connection, folder, manifest, progress=progress)
        golden = _self_test(connection, copied, threads=threads)
        progress("measuring on the device", 0, 1)
        measured = _measure(connection, copied, _inputs(texts, manifest), threads=threads, runs=runs)
        progress("measuring on the device", 1, 1)
        after = read_device(connection)
    return RemoteReport(
        profile=_report(folder, manifest, texts, measured, device=before, batch=batch, threads=threads),
        device=str(address),
        golden=golden,
        peak_bytes=int(measured["peak_bytes"]),
        celsius=(before.celsius, after.celsius),
        sent_files=copied.files,
        sent_bytes=copied.sent_bytes,
        kept_bytes=copied.kept_bytes,
    )


def _self_test(connection: Connection, copied: Copied, *, threads: int) -> str:
    script = f"cd {copied.folder} && ./{RUNNER_FILE} . --self-test --threads {threads}"
    answer = connection.ask(script, doing="checking the golden output")
    if answer.code != 0:
        raise EdgeqError(f"the bundle does not work on {connection.address}: {answer.reason}")
    return answer.output.strip()


def _inputs(texts: Texts, manifest: Manifest) -> bytes:
    if texts.reading and ENCODE in manifest.functions:
        call = call_of_encode(texts.inputs, manifest)
    else:
        call = call_of_main(texts.inputs, manifest)
    return encode_calls([call], tagged=manifest.model.task == "seq2seq")


def _measure(connection: Connection, copied: Copied, inputs: bytes, *, threads: int, runs: int) -> dict[str, Any]:
    # A name of its own: two people may measure on one board, one after the other.
    file = f"inputs-{secrets.token_hex(4)}"
    options = f"--no-verify --profile {file} --repeat {runs} --threads {threads}"
    run = f"trap 'rm -f {file}' EXIT && cat >{file} && ./{RUNNER_FILE} . {options}"
    output = connection.run(f"cd {copied.folder} && {run}", doing="measuring", data=[inputs])
    try:
        measured = json.loads(output)
        if not {"peak_bytes", "seconds", "kernels"} <= measured.keys() or not measured["seconds"]:
            raise ValueError("a figure is missing")
    except (ValueError, AttributeError) as error:
        raise EdgeqError(f"{connection.address} printed no profile ({error}); compile the bundle again") from error
    return measured


def _report(
    folder: Path,
    manifest: Manifest,
    texts: Texts,
    measured: dict[str, Any],
    *,
    device: Device,
    batch: int,
    threads: int,
) -> Profile:
    reason = "only the bundle runs on the device"
    kernels = [
        KernelTime(kernel["name"], kernel["calls"], statistics.median(kernel["seconds"]))
        for kernel in measured["kernels"]
    ]
    return Profile(
        bundle=str(folder),
        target=manifest.name,
        sequence=texts.sequence,
        batch=batch,
        threads=threads,
        rounds=1,
        timings={EDGEQ: summarize(measured["seconds"])},
        speedups={},
        operators=operators_of([kernels]),
        missing={ORT_FLOAT32: reason, ORT_INT8: reason},
        machine=_machine(device, manifest),
        others=None,
        step=manifest.generation is not None and not texts.reading,
        source=0 if texts.reading else texts.source,
        reading=texts.reading,
    )


def _machine(device: Device, manifest: Manifest) -> dict[str, str]:
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": device.machine.model,
        "board": device.board,
        "cores": str(device.cores),
        "governor": ", ".join(device.governors) or "not shown by this system",
        "clock before": f"{device.megahertz:.0f} MHz" if device.megahertz is not None else "",
        "load before": device.load,
        "kernel": device.system,
        "edgeq": edgeq.__version__,
        "apache-tvm": manifest.tools.get("apache-tvm", ""),
    }
    return {name: value for name, value in facts.items() if value}
