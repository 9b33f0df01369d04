"""Teaches ``transformers`` to load compressed checkpoints: ``import edgeq.hf``, then ``from_pretrained``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from edgeq.errors import FormatError, UnsupportedError
from edgeq.factor.insert import insert_factor_modules
from edgeq.factor.manifest import FactorManifest
from edgeq.formats.quantization_config import QUANT_METHOD, QuantizationManifest
from edgeq.models.transformers_release import RELEASE
from edgeq.quant.manifest import fill_zero_buffers, insert_packed_modules
from edgeq.quant.modules import PackedModule
from edgeq.reading import sha256


@register_quantization_config(QUANT_METHOD)
class EdgeqConfig(QuantizationConfigMixin):
    """``quantization_config`` of a compressed checkpoint, as ``transformers`` carries it around.

    Args:
        manifest: The description of the packed tensors, parsed or as JSON values.
    """

    def __init__(self, **manifest: Any) -> None:
        self.quant_method = QUANT_METHOD
        self.manifest = QuantizationManifest.from_json({"quant_method": QUANT_METHOD, **manifest})
        self.factors = FactorManifest.from_json(self.manifest.factors)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Builds the configuration from the values in ``config.json``."""
        config = cls(**{key: value for key, value in config_dict.items() if key != "quant_method"})
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for ``config.json``."""
        return copy.deepcopy(self.manifest.to_json())


@register_quantizer(QUANT_METHOD)
class EdgeqQuantizer(HfQuantizer):
    """Puts factorised and packed modules where ``config.json`` says, before ``transformers`` fills in the tensors."""

    requires_calibration = True
    required_packages = ("accelerate",)

    @property
    def _manifest(self) -> QuantizationManifest:
        manifest: QuantizationManifest = self.quantization_config.manifest
        return manifest

    def update_dtype(self, dtype: torch.dtype | str | None) -> torch.dtype:
        """Low-bit layers compute in float32, which is what ``"auto"`` means for them."""
        if dtype not in (None, torch.float32, "float32", "auto"):
            raise UnsupportedError(
                f"a compressed checkpoint computes in float32, found a request for {dtype}"
            )
        return torch.float32

    def update_torch_dtype(self, dtype: torch.dtype | str | None) -> torch.dtype:
        """Older name of :meth:`update_dtype`."""
        return self.update_dtype(dtype)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        if RELEASE < 5 and getattr(model.config, "rope_parameters", None) is not None:
            raise UnsupportedError(
                "config.json has 'rope_parameters', which release 5 of transformers wrote and "
                f"{transformers.__version__} would not read; install release 5, or load the folder with edgeq"
            )
        files = kwargs.get("checkpoint_files") or ()
        folder = Path(files[0]).parent if files else Path(str(model.config.name_or_path))
        verify_packed_files(folder, self._manifest)
        if not getattr(model.config, "add_pooling_layer", True) and getattr(model, "pooler", None) is not None:
            model.register_module("pooler", None)  # the checkpoint has none, and one of random weights would answer too
        insert_compressed_modules(model, self._manifest)
        for module in model.modules():
            # What a module counts for itself, such as positions, is stored nowhere: release 5 makes it anew.
            keeps_all = not module._non_persistent_buffers_set
            if keeps_all and any(isinstance(child, PackedModule) for child in module.children()):
                # Release 5 would give random weights to layers by their names, and packed ones have none of these.
                module._is_hf_initialized = True

    def update_missing_keys(self, model: Any, missing_keys: list[str], *_: Any) -> list[str]:
        """Refuses what release 4 of ``transformers`` would fill with whatever lies in memory."""
        packed = {name for name, module in model.named_modules() if isinstance(module, PackedModule)}
        if lost := sorted(key for key in missing_keys if key.rpartition(".")[0] in packed):
            raise FormatError(
                f"the checkpoint {model.config.name_or_path} lacks tensor {lost[0]!r} of {type(model).__name__}; "
                "compress the model again"
            )
        return missing_keys

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        fill_zero_buffers(model, self._manifest)
        check_scales(model)
        # The digests are those of files on disk; a model saved again from memory has new files.
        self._manifest.files.clear()
        return model

    def is_serializable(self, safe_serialization: bool | None = None) -> bool:
        """Packed modules save as they are, but only as safetensors: edgeq writes no pickle."""
        return safe_serialization is not False

    @property
    def is_trainable(self) -> bool:
        """Packed codes are integers: training keeps its own checkpoints."""
        return False


def insert_compressed_modules(model: nn.Module, manifest: QuantizationManifest) -> None:
    """Replaces dense layers by the empty factorised and packed ones that the manifest describes.

    Raises:
        FormatError: If a layer is not there, or has another shape or kind.
    """
    factors = FactorManifest.from_json(manifest.factors)
    insert_factor_modules(model, factors.for_model(model))
    insert_packed_modules(model, manifest)


def verify_packed_files(folder: Path, manifest: QuantizationManifest) -> None:
    """Compares the weight files in ``folder`` with the digests in the manifest.

    Raises:
        FormatError: If a file has changed since the checkpoint was written.
    """
    for name, digest in manifest.files.items():
        path = folder / Path(name).name
        if path.is_file() and sha256(path) != digest:
            raise FormatError(
                f"{path} is damaged: its SHA-256 is not the one in config.json; compress the model again"
            )


def check_scales(model: nn.Module) -> None:
    """Raises :class:`FormatError` if a packed layer has a scale that is negative or not finite."""
    for name, module in model.named_modules():
        if isinstance(module, PackedModule) and not bool(
            ((module.scale >= 0) & torch.isfinite(module.scale)).all()
        ):
            raise FormatError(
                f"the scales of layer {name!r} hold negative or infinite values: the checkpoint is damaged"
            )
