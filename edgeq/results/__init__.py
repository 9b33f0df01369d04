"""What the stages of a run hand to each other and to the report: typed, in one shape each, with a version.

Each file is a JSON object with ``format`` and ``version`` and the fields of one of these classes;
``docs/reference/schemas/`` holds their JSON Schemas. A file of another version is refused: the run is then deployed
again.
"""

from edgeq.results.accuracy import Accuracy, Loss, Predictions, Score
from edgeq.results.base import Result
from edgeq.results.comparison import Baseline, ComparedModel, Difference, PairedTests, RunComparison
from edgeq.results.diff import BackendDiff, DiffReport, Step
from edgeq.results.gates import Gates, LossEnd, LossLimit
from edgeq.results.ledger import CacheBytes, LedgerRow, LedgerTotals, LeftOut, RunLedger, StoredBytes
from edgeq.results.parity import Check, Conditions, ParityReport
from edgeq.results.profile import KernelShare, Profile, RunProfile, SpeedupClaim, Timing
from edgeq.results.run import (
    About,
    Level,
    RecipeOfRun,
    Report,
    RunRecord,
    StageRecord,
    Taken,
    TargetOfRun,
    Verdict,
)
from edgeq.results.schemas import FILES, OTHERS, schema_of
from edgeq.results.training import (
    Evaluation,
    LogLine,
    SavedProgress,
    StageOutcome,
    TrainedStage,
    Training,
    TrainingResult,
    TrainingRun,
)

__all__ = [
    "FILES",
    "OTHERS",
    "About",
    "Accuracy",
    "BackendDiff",
    "Baseline",
    "CacheBytes",
    "Check",
    "ComparedModel",
    "Conditions",
    "DiffReport",
    "Difference",
    "Evaluation",
    "Gates",
    "KernelShare",
    "LedgerRow",
    "LedgerTotals",
    "LeftOut",
    "Level",
    "LogLine",
    "Loss",
    "LossEnd",
    "LossLimit",
    "PairedTests",
    "ParityReport",
    "Predictions",
    "Profile",
    "RecipeOfRun",
    "Report",
    "Result",
    "RunComparison",
    "RunLedger",
    "RunProfile",
    "RunRecord",
    "SavedProgress",
    "Score",
    "SpeedupClaim",
    "StageOutcome",
    "StageRecord",
    "Step",
    "StoredBytes",
    "Taken",
    "TargetOfRun",
    "Timing",
    "TrainedStage",
    "Training",
    "TrainingResult",
    "TrainingRun",
    "Verdict",
    "schema_of",
]
