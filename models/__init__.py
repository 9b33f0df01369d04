"""Architecture adapters: what edgeq must know about a model family to compress and export it."""

from edgeq.models.adapter import CacheShape, GenerativeAdapter, ModelAdapter, Task
from edgeq.models.inference import TorchDecoder, TorchEncoder, positions
from edgeq.models.registry import adapter_for, supported_architectures

__all__ = [
    "CacheShape",
    "GenerativeAdapter",
    "ModelAdapter",
    "Task",
    "TorchDecoder",
    "TorchEncoder",
    "adapter_for",
    "positions",
    "supported_architectures",
]
