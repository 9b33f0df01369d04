"""Milliseconds of a structure: measured here or on a device, or estimated for a target that is not here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.export.exporter import export_onnx
from edgeq.files import write_json
from edgeq.formats.json_file import read_json_object
from edgeq.progress import Progress
from edgeq.search.report import Latency
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.devices.estimate.estimator import estimate_bundle
from edgeq.targets.devices.profiler import profile_bundle
from edgeq.targets.devices.remote.address import Address
from edgeq.targets.devices.remote.profile import profile_on_device
from edgeq.targets.runtime.machine import this_machine

_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class Stopwatch:
    """Where latency is to be told.

    Attributes:
        target: What bundles are compiled for.
        device: The device that they are timed on; None for this machine, or for an estimate.
        threads: Threads of a call that is measured; an estimate is of one core.
        sequence: Tokens of a text; None as ``edgeq profile`` chooses.
    """

    target: Target
    device: Address | None = None
    threads: int = 2
    sequence: int | None = None

    @property
    def identity(self) -> str:
        """What tells one way to measure from another."""
        place = "device" if self.device else "here"
        return f"{self.target.name}, {place}, {self.threads} threads, {self.sequence or 'usual'} tokens"

    def of(self, checkpoint: Path, work: Path, *, progress: Progress) -> Latency:
        """Compiles a checkpoint and tells its latency; what is in ``work`` already is not done again.

        Args:
            checkpoint: A compressed checkpoint; its bits do not matter, its shapes do.
            work: Folder for graph, bundle and result.
            progress: Told how far the work is.

        Raises:
            EdgeqError: If a stage fails, or the device cannot be reached.
        """
        file = work / "latency.json"
        if file.is_file():
            return _read(file, self.identity)
        work.mkdir(parents=True, exist_ok=True)
        export_onnx(checkpoint, work / "onnx", force=True, progress=progress)
        bundle = compile_bundle(work / "onnx", work / "bundle", target=self.target, force=True, progress=progress)
        found = self._told(bundle, progress)
        write_json(file, dataclasses.asdict(found) | {"identity": self.identity}, indent=None)
        return found

    def _told(self, bundle: Path, progress: Progress) -> Latency:
        if self.device is not None:
            remote = profile_on_device(
                bundle, self.device, sequence=self.sequence, threads=self.threads, progress=progress
            )
            return Latency(1e3 * remote.profile.timings["edgeq"].median, f"measured on {remote.device}")
        if self.target.runs_on(this_machine()):
            here = profile_bundle(
                bundle, sequence=self.sequence, threads=self.threads, rounds=_ROUNDS, progress=progress
            )
            return Latency(1e3 * here.timings["edgeq"].median, "measured here")
        guessed = estimate_bundle(bundle, sequence=self.sequence, progress=progress)
        return Latency(1e3 * guessed.seconds, f"ESTIMATE for {self.target.name}, not measured")


def _read(file: Path, identity: str) -> Latency:
    values = read_json_object(file)
    try:
        if values["identity"] != identity:
            raise FormatError(f"{file} is of {values['identity']}, not of {identity}; search in a new folder")
        return Latency(float(values["milliseconds"]), str(values["how"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file} is damaged ({error!r}); delete it") from error
