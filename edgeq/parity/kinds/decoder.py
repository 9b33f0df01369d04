"""Decoders: texts that the reference continued, through every stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

from edgeq.backends import Arrays
from edgeq.backends.onnx_files import cache_type, load_model
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint
from edgeq.errors import UnsupportedError
from edgeq.export.decoded import open_decoded
from edgeq.models import GenerativeAdapter, TorchDecoder
from edgeq.models.cache import baseline_dtype
from edgeq.parity.inputs.decoder import Continuation, make_continuations
from edgeq.parity.kinds.base import ComparedRun
from edgeq.parity.kinds.text_generation import EMULATED_TOKENS, LOGITS, TextGenerationParity
from edgeq.parity.reference import Reference
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.progress import Progress
from edgeq.results import Conditions

_FILE = "model.onnx"


class DecoderParity(TextGenerationParity):
    """Parity of a model that generates text."""

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        super().__init__(folder, progress)
        self._cache_dtype = cache_type(load_model(folder.path / "onnx" / _FILE, weights=False))
        self.reference = self.reference_of(folder.checkpoint)
        self.texts: list[Continuation] = make_continuations(
            self._decoder(folder.checkpoint),
            vocabulary=folder.checkpoint.adapter.config.vocab_size,
            longest=self.longest(),
            tokenizer=folder.checkpoint.tokenizer,
            texts=folder.texts,
        )

    def count_quantized(self) -> int:
        """See :meth:`ParityRun.count_quantized`."""
        tokens = [{"input_ids": np.concatenate(text.rows)} for text in self.texts]
        cached = sum(each["input_ids"].size for each in tokens) if self._cache_dtype == torch.int8 else 0
        of_cache = cached * _adapter_of(self.folder.checkpoint).cache.values_of_a_token
        return self.reference.quantized_values(tokens) + of_cache

    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.reference_of`."""
        return Reference(checkpoint, TorchBackend(self._decoder(checkpoint)))

    def float_reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.float_reference_of`."""
        adapter, dtype = _adapter_of(checkpoint), baseline_dtype(self._cache_dtype)
        return Reference(checkpoint, TorchBackend(TorchDecoder(checkpoint.model, adapter, cache_dtype=dtype)))

    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """See :meth:`ParityRun.run_reference`."""

        def run(feed: Arrays) -> Arrays:
            if seed is None:
                return reference.run([feed])[0]
            return reference.run_with_noise([feed], seed=seed)[0]

        return [text.whole(run, {}) for text in self.texts]

    def operators_alone(self) -> OperatorsAlone:
        """See :meth:`ParityRun.operators_alone`."""
        lone = self.texts[-1]
        layers = self.reference.record(lone.feed)
        self.forget_decoded()
        return OperatorsAlone({"": self.exported()}, layers)

    def run_onnx_reference(self) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_reference`."""
        evaluator = OnnxReference(self.exported())
        return [text.whole(evaluator, self._empty(text, self._cache_dtype)) for text in self.texts]

    def exported(self) -> onnx.ModelProto:
        """Loads the exported model, which nobody holds while others compute."""
        return load_model(self.folder.path / "onnx" / _FILE)

    def run_onnx_runtime(self, folder: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_runtime`."""
        dtype = cache_type(load_model(folder / _FILE, weights=False))
        with open_decoded(folder / _FILE) as runtime:
            return [text.step_by_step(runtime, self._empty(text, dtype)) for text in self.texts]

    def run_emulated(self, bundle: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_emulated`."""
        emulated, found = self.emulated(bundle), []
        for text in self.texts:
            calls = emulated.run_all(text.beginning(EMULATED_TOKENS).bundle_inputs())
            found.append({LOGITS: np.stack([outputs[LOGITS] for outputs in calls], axis=1)})
        return found

    def conditions(self) -> Conditions:
        """See :meth:`ParityRun.conditions`."""
        return Conditions(
            noise_runs=self.noise_runs,
            prompts=tuple(tuple(len(prompt) for prompt in text.prompts) for text in self.texts),
            new_tokens=tuple(text.new for text in self.texts),
        )

    def _decoder(self, checkpoint: Checkpoint) -> TorchDecoder:
        return TorchDecoder(checkpoint.model, _adapter_of(checkpoint), cache_dtype=self._cache_dtype)

    def _empty(self, text: Continuation, dtype: torch.dtype) -> Arrays:
        cache = _adapter_of(self.folder.checkpoint).empty_cache(len(text.rows), dtype=dtype)
        return {name: tensor.numpy() for name, tensor in cache.items()}


def _adapter_of(checkpoint: Checkpoint) -> GenerativeAdapter:
    if not isinstance(checkpoint.adapter, GenerativeAdapter):
        raise UnsupportedError(f"{checkpoint.adapter.architecture} is no decoder")
    return checkpoint.adapter
