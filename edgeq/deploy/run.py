"""``deploy``: one call that takes a checkpoint to bundles, proof and a report, and may be interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.deploy.pipeline import run_stages
from edgeq.deploy.request import DeployRequest
from edgeq.deploy.state import (
    STATE_FILE,
    RunState,
    exclusive,
    holds_nothing_of_others,
    remove_if_nothing_was_done,
)
from edgeq.errors import UsageError
from edgeq.files import Output, check_new_folder
from edgeq.progress import Progress, silent
from edgeq.report.gates import gate_results
from edgeq.results import Accuracy, ParityReport, Report
from edgeq.targets.runtime.manifest import read_manifest, verify_files

if TYPE_CHECKING:
    from edgeq.deploy.plan import Plan


@dataclasses.dataclass(frozen=True)
class DeployResult:
    """What a run came to.

    Attributes:
        folder: The run's folder.
        report: Contents of ``report.json``.
        ran: Stages that ran now; the others were finished already.
    """

    folder: Path
    report: Report
    ran: list[str]

    @property
    def passed(self) -> bool:
        """Whether every parity rule held, those on the evaluation data included, and every limit was kept."""
        return self.report.parity.passed and all(gate.passed for gate in gate_results(self.report))


def deploy(
    source: str | Path,
    out: str | Path,
    *,
    progress: Progress = silent,
    remark: Callable[[str], None] | None = None,
    **options: Any,
) -> DeployResult:
    """Compresses, exports, compiles, evaluates, checks parity, profiles and reports.

    Args:
        source: Folder of a float checkpoint, or a hub name.
        out: Folder of the run. If it is a run already, finished and unchanged stages are not repeated.
        progress: Told the progress of every stage.
        remark: Told what the user should know of how the model was read.
        options: The other fields of :class:`~edgeq.deploy.request.DeployRequest`: ``recipe``, ``targets``,
            ``eval_data``, ``gates`` and more.

    Raises:
        TypeError: If ``recipe`` is missing or an option is unknown.
        UsageError: If the request makes no sense; nothing is written then.
        EdgeqError: If a stage fails; finished stages stay, and the next call goes on from there.
    """
    return carry_out(DeployRequest(source=source, **options), out, progress=progress, remark=remark)


def carry_out(
    request: DeployRequest,
    out: str | Path,
    *,
    progress: Progress = silent,
    remark: Callable[[str], None] | None = None,
) -> DeployResult:
    """Does what :func:`deploy` does for a request that is there already; same errors."""
    folder = Path(out)
    if not request.force:
        _check_place(folder)
    # The plan brings torch, onnx and tvm with it: a wrong path need not wait for them.
    from edgeq.deploy.plan import make_plan

    plan = make_plan(request)
    _check_apart(plan, folder)
    return _run_alone(plan, folder, progress, remark)


def _run_alone(
    plan: Plan, folder: Path, progress: Progress, remark: Callable[[str], None] | None
) -> DeployResult:
    """Runs the stages while nobody else writes into the folder."""
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(folder):
            return _run(plan, folder, progress, remark)
    finally:
        if created:
            remove_if_nothing_was_done(folder)


def check_parity(run: str | Path, *, progress: Progress = silent) -> ParityReport:
    """Checks the parity of a run again and writes ``parity.json``.

    Returns:
        The contents of ``parity.json`` with the checks on the evaluation data, which deploy made.

    Raises:
        UsageError: If the folder is not a run of deploy.
        FormatError: If a file of a bundle is damaged.
    """
    folder = Path(run)
    state = RunState.load(folder)
    for manifest in sorted(folder.glob("bundles/*/manifest.json")):
        # Damage is found in a second here; the comparison itself would come to it after minutes.
        verify_files(manifest.parent, read_manifest(manifest.parent))
    from edgeq.parity import run_parity

    with exclusive(folder):
        report = run_parity(folder, progress=progress)
        report.write(folder / "parity.json")
        if "parity" in state.stages:
            state.finish("parity", state.stages["parity"].key, ("parity.json",))
    data = folder / "accuracy.json"
    return report.with_data(Accuracy.read(data).checks) if data.is_file() else report


def _check_place(folder: Path) -> None:
    if not folder.is_dir():
        check_new_folder(folder, Output("deploy"))
    elif not (folder / STATE_FILE).is_file() and not holds_nothing_of_others(folder):
        raise UsageError(f"{folder} is not empty and is not a run of edgeq; give the name of a new folder")


def _check_apart(plan: Plan, folder: Path) -> None:
    source, out = plan.folder.resolve(), folder.resolve()
    if out == source or out in source.parents:
        raise UsageError(f"{folder} holds the source {plan.folder}; give another folder to write")


def _run(plan: Plan, folder: Path, progress: Progress, remark: Callable[[str], None] | None) -> DeployResult:
    from edgeq.deploy.stages import stages_of

    if (folder / STATE_FILE).is_file():
        state = RunState.load(folder)
        state.about = plan.about()
    else:
        state = RunState(folder, plan.about(), {})
        state.save()  # from now on the same command goes on with this folder, whatever ends it
    stages = stages_of(plan, folder, remark=remark)
    if state.stages:
        state.forget_all_but({stage.name for stage in stages})
    ran = run_stages(stages, state, progress=progress)
    return DeployResult(folder, Report.read(folder / "report.json"), ran)
