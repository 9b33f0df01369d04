"""Texts for encoder-decoders: encoder inputs of different lengths, and what the reference generates from them.

As in :mod:`edgeq.parity.inputs.decoder`, every stage reads the same tokens of the generated texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from edgeq.backends import Arrays, Backend
from edgeq.backends.pytorch import TorchBackend
from edgeq.models import Seq2SeqAdapter, TorchPart
from edgeq.parity.inputs.decoder import NEW_TOKENS
from edgeq.targets.bundle.model_info import TargetTokens
from edgeq.targets.runtime.source_decoder import SourceDecoder

ENCODER, FIRST_STEP, NEXT_STEP = PARTS = ("encoder_model", "decoder_model", "decoder_with_past_model")
"""Names of the parts of an encoder-decoder, as optimum has them."""
_LENGTHS = (3, 10, 17, 31)
"""Of the encoder inputs in one batch: neighbours of multiples of 16, the width of a vector of keys."""
_LONE_SOURCE, _LONE_NEW = 5, 16


@dataclasses.dataclass(frozen=True)
class EncoderDecoderText:
    """A batch of encoder inputs, and a text that was generated from each.

    Attributes:
        sources: Ids of each encoder input, int64.
        targets: int64 ``[batch, 1 + new]``: the token that every text starts with, then those that were generated.
        forced: Number of tokens after the first that the model's configuration sets, whatever the logits are.
    """

    sources: tuple[np.ndarray, ...]
    targets: np.ndarray
    forced: int = 0

    @property
    def new(self) -> int:
        """Number of tokens that were generated from each encoder input."""
        return int(self.targets.shape[1]) - 1

    @property
    def generated(self) -> np.ndarray:
        """Those tokens, int64 ``[batch, new]``."""
        return self.targets[:, 1:]

    @property
    def source(self) -> Arrays:
        """Inputs of the encoder, padded on the right."""
        return padded_encoder_input(self.sources)

    @property
    def feed(self) -> Arrays:
        """Inputs of encoder and decoder together: everything that the last token was chosen from."""
        return {**self.source, "decoder_input_ids": self.targets[:, :-1]}

    @property
    def one_by_one(self) -> list[EncoderDecoderText]:
        """The same texts, each a batch of its own."""
        pairs = zip(self.sources, self.targets, strict=True)
        return [dataclasses.replace(self, sources=(source,), targets=target[None]) for source, target in pairs]

    def beginning(self, new: int) -> EncoderDecoderText:
        """Returns the same encoder inputs with fewer new tokens."""
        return dataclasses.replace(self, targets=self.targets[:, : 1 + new])

    def step_by_step(self, parts: Mapping[str, Backend]) -> Arrays:
        """Runs exported graphs token by token on the caches.

        Args:
            parts: Each of :data:`PARTS` as a function from named arrays to named arrays.

        Returns:
            ``logits``, float32 ``[batch, new, vocabulary]``: what each new token was chosen from; and
            ``last_hidden_state``, float32 ``[batch, source, width]``, zero where the encoder input is padded.
        """
        states = parts[ENCODER](self.source)["last_hidden_state"]
        mask = self.source["attention_mask"]
        logits, cache = [], {"encoder_hidden_states": states}
        for step in range(self.new):
            feed = {"encoder_attention_mask": mask, "input_ids": self.targets[:, step : step + 1]}
            outputs = parts[NEXT_STEP if step else FIRST_STEP]({**feed, **cache})
            logits.append(outputs.pop("logits")[:, -1])
            following = {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
            # Later steps give the caches of the target only: those of the encoder input stay.
            cache = {**(cache if step else {}), **following}
        return self._outputs(states, np.stack(logits, axis=1))

    def in_bundle(self, bundle: Any) -> Arrays:
        """Runs a loaded bundle token by token; returns as :meth:`step_by_step`."""
        state = bundle.new_state(len(self.sources))
        states = bundle.encode_source(self.bundle_source, state=state)["last_hidden_state"]
        decoder = SourceDecoder(bundle, self._source_ids)
        logits = [decoder.append(column[:, None].tolist()) for column in self.targets[:, :-1].T]
        return self._outputs(states, np.stack(logits, axis=1))

    def in_bundle_without_cache(self, bundle: Any, steps: Sequence[int]) -> Arrays:
        """Runs a bundle from the start of the texts for each of some steps: ``logits`` ``[batch, steps, ...]``."""
        read = [self.targets[:, : step + 1].tolist() for step in steps]
        return {"logits": np.stack([SourceDecoder(bundle, self._source_ids).append(rows) for rows in read], axis=1)}

    def free_running(self, bundle: Any) -> np.ndarray:
        """Lets a bundle generate greedily on its own: int64 ``[batch, new]``."""
        decoder = SourceDecoder(bundle, self._source_ids)
        newest, generated = self.targets[:, 0], []
        for step in range(self.new):
            greedy = decoder.append(newest[:, None].tolist()).argmax(axis=1)
            newest = self.generated[:, step] if step < self.forced else greedy
            generated.append(newest)
        return np.stack(generated, axis=1)

    @property
    def bundle_source(self) -> Arrays:
        """Inputs of a bundle's ``encode``."""
        return {**self.source, "source_lengths": np.array([len(source) for source in self.sources], np.int64)}

    def bundle_inputs(self) -> list[Arrays]:
        """Returns the inputs of a bundle's ``main``, call by call on one state: token by token."""
        ones = np.ones(len(self.sources), np.int64)
        same = {"new_lengths": ones, "source_lengths": self.bundle_source["source_lengths"]}
        return [
            {"input_ids": self.targets[:, step : step + 1], "past_lengths": step * ones, **same}
            for step in range(self.new)
        ]

    def of_calls(self, encoded: Arrays, calls: Sequence[Arrays]) -> Arrays:
        """Returns the outputs of those calls as :meth:`step_by_step` does."""
        return self._outputs(encoded["last_hidden_state"], np.stack([call["logits"] for call in calls], axis=1))

    @property
    def _source_ids(self) -> list[list[int]]:
        return [source.tolist() for source in self.sources]

    def _outputs(self, states: np.ndarray, logits: np.ndarray) -> Arrays:
        return {"logits": logits, "last_hidden_state": without_padding(states, self.source["attention_mask"])}


def padded_encoder_input(sources: Sequence[np.ndarray]) -> Arrays:
    """Returns ``input_ids`` and ``attention_mask`` of some encoder inputs, int64 ``[batch, longest]``."""
    ids, mask = np.zeros((2, len(sources), max(map(len, sources))), np.int64)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = source
        mask[row, : len(source)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def without_padding(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the states of an encoder with zeros where nothing is read."""
    return np.where(mask[:, :, None] == 1, states, np.float32(0))


def at_once(feed: Arrays, parts: Mapping[str, Backend]) -> Arrays:
    """Runs encoder and decoder on everything at once.

    Args:
        feed: :attr:`EncoderDecoderText.feed`.
        parts: The encoder and the decoder's first step, by name.

    Returns:
        As :meth:`EncoderDecoderText.step_by_step`.
    """
    mask = feed["attention_mask"]
    states = parts[ENCODER]({"input_ids": feed["input_ids"], "attention_mask": mask})["last_hidden_state"]
    read = {"encoder_attention_mask": mask, "input_ids": feed["decoder_input_ids"], "encoder_hidden_states": states}
    return {"logits": parts[FIRST_STEP](read)["logits"], "last_hidden_state": without_padding(states, mask)}


def torch_parts(model: Any, adapter: Seq2SeqAdapter, *, cache_dtype: torch.dtype) -> dict[str, Backend]:
    """Returns the parts of a PyTorch model, by name."""
    return {part.name: TorchBackend(TorchPart(part)) for part in adapter.export_parts(model, cache_dtype=cache_dtype)}


def make_encoder_decoder_texts(
    parts: Mapping[str, Backend],
    *,
    tokens: TargetTokens,
    vocabulary: int,
    longest_source: int,
    longest: int,
    tokenizer: Any,
    texts: Sequence[str],
) -> list[EncoderDecoderText]:
    """Lets the reference generate greedily; the same arguments give the same tokens.

    Args:
        parts: The reference.
        tokens: How its texts start.
        vocabulary: Number of token ids.
        longest_source: Most tokens that the model reads.
        longest: Most tokens that a text may have, the one that it starts with included.
        tokenizer: A ``transformers`` tokenizer.
        texts: What the encoder inputs begin with; random ids follow where a text is too short.

    Returns:
        A batch of four encoder inputs of different lengths with up to 128 new tokens, and a short one alone.
    """
    random = np.random.default_rng(22)
    sources = []
    for length, text in zip(_LENGTHS, [*texts, *[""] * len(_LENGTHS)], strict=False):
        known = [token for token in tokenizer(text)["input_ids"] if token < vocabulary]
        filled = [*known, *random.integers(0, vocabulary, length).tolist()]
        sources.append(np.array(filled[: min(length, longest_source)], np.int64))
    lone = random.integers(0, vocabulary, min(_LONE_SOURCE, longest_source))
    return [
        generate_greedily(parts, sources, tokens=tokens, new=min(NEW_TOKENS, longest)),
        generate_greedily(parts, [lone], tokens=tokens, new=min(_LONE_NEW, longest)),
    ]


def generate_greedily(
    parts: Mapping[str, Backend], sources: Sequence[np.ndarray], *, tokens: TargetTokens, new: int
) -> EncoderDecoderText:
    """Lets the reference generate a text from each encoder input greedily, beyond its end if need be.

    Args:
        parts: The reference.
        sources: Ids of each encoder input, int64.
        tokens: How its texts start.
        new: Number of tokens to make.
    """
    source = padded_encoder_input(sources)
    targets = np.full((len(sources), 1), tokens.start, np.int64)
    mask = source["attention_mask"]
    cache = {"encoder_hidden_states": parts[ENCODER](source)["last_hidden_state"]}
    for step in range(new):
        feed = {"encoder_attention_mask": mask, "input_ids": targets[:, -1:], **cache}
        outputs = parts[NEXT_STEP if step else FIRST_STEP](feed)
        chosen = outputs.pop("logits")[:, -1].argmax(axis=-1)[:, None]
        if step == 0 and tokens.forced_first is not None:
            chosen = np.full_like(chosen, tokens.forced_first)
        following = {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
        cache = {**(cache if step else {}), **following}
        targets = np.concatenate([targets, chosen], axis=1)
    return EncoderDecoderText(tuple(sources), targets, forced=int(tokens.forced_first is not None))
