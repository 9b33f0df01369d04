"""Training: a student, a teacher, data, and trainings that can be killed and resumed."""

from edgeq.training.data import TaskData, encode_rows, load_pretraining_texts, load_task_data, task_of
from edgeq.training.evaluation import Figures, evaluate_model
from edgeq.training.examples import ExampleSet
from edgeq.training.loop import BeginStage, train
from edgeq.training.outcome import TrainingOutcome
from edgeq.training.run_folder import is_quantized_checkpoint, start_from, training_checkpoint
from edgeq.training.settings import StageSettings, TaskName, TrainingSettings

__all__ = [
    "BeginStage",
    "ExampleSet",
    "Figures",
    "StageSettings",
    "TaskData",
    "TaskName",
    "TrainingOutcome",
    "TrainingSettings",
    "encode_rows",
    "evaluate_model",
    "is_quantized_checkpoint",
    "load_pretraining_texts",
    "load_task_data",
    "start_from",
    "task_of",
    "train",
    "training_checkpoint",
]
