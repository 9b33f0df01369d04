"""Encoder-decoders: encoder inputs with the texts that the reference generated, through every stage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import torch

from edgeq.backends import Arrays, Backend
from edgeq.backends.onnx_files import cache_type, load_model
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.checkpoint import Checkpoint
from edgeq.errors import UnsupportedError
from edgeq.export.decoded import open_decoded
from edgeq.models import Seq2SeqAdapter
from edgeq.models.cache import baseline_dtype
from edgeq.parity.inputs.encoder_decoder import (
    NEXT_STEP,
    PARTS,
    EncoderDecoderText,
    at_once,
    make_encoder_decoder_texts,
    torch_parts,
)
from edgeq.parity.kinds.base import ComparedRun
from edgeq.parity.kinds.text_generation import EMULATED_TOKENS, TextGenerationParity
from edgeq.parity.reference import Reference
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.progress import Progress
from edgeq.results import Conditions
from edgeq.targets.bundle.model_info import read_target_tokens


class EncoderDecoderParity(TextGenerationParity):
    """Parity of a model that generates a text from an encoder input."""

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        super().__init__(folder, progress)
        exported = folder.path / "onnx"
        self._cache_dtype = cache_type(load_model(exported / f"{NEXT_STEP}.onnx", weights=False))
        self.reference = self.reference_of(folder.checkpoint)
        adapter = folder.checkpoint.adapter
        self.texts: list[EncoderDecoderText] = make_encoder_decoder_texts(
            _parts(folder.checkpoint, self._cache_dtype),
            tokens=read_target_tokens(exported),
            vocabulary=adapter.config.vocab_size,
            longest_source=adapter.max_positions,
            longest=self.longest(),
            tokenizer=folder.checkpoint.tokenizer,
            texts=folder.texts,
        )

    def count_quantized(self) -> int:
        """See :meth:`ParityRun.count_quantized`."""
        layers = [layer for text in self.texts for layer in self.reference.record(text.feed).values()]
        of_layers = sum(layer.value.size for layer in layers if layer.format.activation != "none")
        adapter = self.folder.checkpoint.adapter
        if self._cache_dtype != torch.int8 or not isinstance(adapter, Seq2SeqAdapter):
            return of_layers
        fed = [ids for text in self.texts for ids in (text.feed["input_ids"], text.feed["decoder_input_ids"])]
        return of_layers + sum(ids.size for ids in fed) * adapter.cache.values_of_a_token

    def source_masks(self) -> list[Arrays]:
        """See :meth:`TextGenerationParity.source_masks`."""
        return [text.source for text in self.texts]

    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.reference_of`."""
        return self._reference(checkpoint, self._cache_dtype)

    def float_reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.float_reference_of`."""
        return self._reference(checkpoint, baseline_dtype(self._cache_dtype))

    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """See :meth:`ParityRun.run_reference`."""
        feeds = [text.feed for text in self.texts]
        return reference.run(feeds) if seed is None else reference.run_with_noise(feeds, seed=seed)

    def operators_alone(self) -> OperatorsAlone:
        """See :meth:`ParityRun.operators_alone`."""
        layers = self.reference.record(self.texts[-1].feed)
        self.forget_decoded()
        return OperatorsAlone(self.exported(), layers)

    def run_onnx_reference(self) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_reference`."""
        evaluators = {name: OnnxReference(model) for name, model in self.exported().items()}
        return [at_once(text.feed, evaluators) for text in self.texts]

    def exported(self) -> dict[str, onnx.ModelProto]:
        """Loads the exported graphs, which nobody holds while others compute."""
        return {name: load_model(self.folder.path / "onnx" / f"{name}.onnx") for name in PARTS}

    def run_onnx_runtime(self, folder: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_runtime`."""
        with contextlib.ExitStack() as stack:
            sessions = {name: stack.enter_context(open_decoded(folder / f"{name}.onnx")) for name in PARTS}
            return [text.step_by_step(sessions) for text in self.texts]

    def run_emulated(self, bundle: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_emulated`."""
        emulated, found = self.emulated(bundle), []
        for text in self.texts:
            beginning = text.beginning(EMULATED_TOKENS)
            calls = beginning.bundle_inputs()
            found.append(beginning.of_calls(*emulated.run_with_encoder_input(beginning.bundle_source, calls)))
        return found

    def conditions(self) -> Conditions:
        """See :meth:`ParityRun.conditions`."""
        return Conditions(
            noise_runs=self.noise_runs,
            encoder_inputs=tuple(tuple(len(source) for source in text.sources) for text in self.texts),
            new_tokens=tuple(text.new for text in self.texts),
        )

    @staticmethod
    def _reference(checkpoint: Checkpoint, cache_dtype: torch.dtype) -> Reference:
        parts = _parts(checkpoint, cache_dtype)
        return Reference(checkpoint, lambda feed: at_once(feed, parts))


def _parts(checkpoint: Checkpoint, cache_dtype: torch.dtype) -> dict[str, Backend]:
    if not isinstance(checkpoint.adapter, Seq2SeqAdapter):
        raise UnsupportedError(f"{checkpoint.adapter.architecture} is no encoder-decoder")
    return torch_parts(checkpoint.model, checkpoint.adapter, cache_dtype=cache_dtype)
