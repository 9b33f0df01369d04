"""Architecture adapters: what edgeq must know about a model family to compress and export it."""

from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.inference import TorchEncoder
from edgeq.models.registry import adapter_for, supported_architectures

__all__ = ["ModelAdapter", "Task", "TorchEncoder", "adapter_for", "supported_architectures"]
