"""Checkpoint folders: loading float and compressed ones with all checks, and saving compressed ones."""

from edgeq.checkpoint.config import is_compressed, read_config
from edgeq.checkpoint.load import Checkpoint, empty_model, load_checkpoint, read_adapter
from edgeq.checkpoint.save import OUTPUT, save_checkpoint, save_float_checkpoint
from edgeq.checkpoint.tokenizer import load_tokenizer

__all__ = [
    "OUTPUT",
    "Checkpoint",
    "empty_model",
    "is_compressed",
    "load_checkpoint",
    "load_tokenizer",
    "read_adapter",
    "read_config",
    "save_checkpoint",
    "save_float_checkpoint",
]
