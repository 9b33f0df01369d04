"""Runs every stage of a run folder against PyTorch and applies the five rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeq.backends.bundles import BundleAccess
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UsageError
from edgeq.parity.inputs.sentences import SENTENCES
from edgeq.parity.kinds.base import ComparedRun, ParityRun
from edgeq.parity.kinds.decoder import DecoderParity
from edgeq.parity.kinds.encoder import EncoderParity
from edgeq.parity.kinds.encoder_decoder import EncoderDecoderParity
from edgeq.parity.run_folder import task_of_source
from edgeq.progress import Progress, silent
from edgeq.results import ParityReport
from edgeq.targets.builtin.target import Target

_GENERATING: dict[str, type[ParityRun]] = {"generate": DecoderParity, "seq2seq": EncoderDecoderParity}
"""Models that generate text; all others are called once a text."""


def run_parity(
    run: Path | str,
    *,
    targets: Mapping[str, Target] | None = None,
    texts: Sequence[str] = SENTENCES,
    access: BundleAccess | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Compares every stage of a run with PyTorch.

    Args:
        run: Folder with ``checkpoint``, ``onnx``, ``bundles/<target>`` and, for the baseline, ``float-onnx``.
        targets: Targets made from files, by name: they say which emulator runs their bundles. Built-in
            ones need not be given.
        texts: Sentences for the task rule, or the beginnings of texts to continue.
        access: How bundles are reached; None loads them here, or runs them under their emulator.
        progress: Told which stage runs.

    Returns:
        One check for each rule and stage; a breach is in the report, not an exception.

    Raises:
        UsageError: If the folder is not a run.
        FormatError: If a file of the run is damaged.
        UnsupportedError: If nothing here can run one of the bundles, or ONNX holds a low-bit layer as floats.
    """
    folder = Path(run)
    for name in ("checkpoint", "onnx"):
        if not (folder / name).is_dir():
            raise UsageError(f"{folder} is not a run of `edgeq deploy`: it holds no folder {name!r}")
    checkpoint = load_checkpoint(folder / "checkpoint", task=task_of_source(folder))
    kind = _GENERATING.get(checkpoint.adapter.task, EncoderParity)
    about = ComparedRun(folder, checkpoint, dict(targets or {}), list(texts), access or BundleAccess())
    return kind(about, progress).report()
