"""Architecture adapters: what edgeq must know about a model family to compress and export it."""

from edgeq.models.adapter import CacheShape, ExportPart, GenerativeAdapter, ModelAdapter, Seq2SeqAdapter, Task
from edgeq.models.architecture import is_of_pretraining, tasks_of
from edgeq.models.decoder_classifiers import DecoderClassifierAdapter
from edgeq.models.inference import TorchDecoder, TorchEncoder, TorchPart, positions
from edgeq.models.registry import adapter_classes, adapter_for, check_family, supported_architectures
from edgeq.models.stacks import AttentionTap, LayerStack, Migration

__all__ = [
    "AttentionTap",
    "CacheShape",
    "DecoderClassifierAdapter",
    "ExportPart",
    "GenerativeAdapter",
    "LayerStack",
    "Migration",
    "ModelAdapter",
    "Seq2SeqAdapter",
    "Task",
    "TorchDecoder",
    "TorchEncoder",
    "TorchPart",
    "adapter_classes",
    "adapter_for",
    "check_family",
    "is_of_pretraining",
    "positions",
    "supported_architectures",
    "tasks_of",
]
