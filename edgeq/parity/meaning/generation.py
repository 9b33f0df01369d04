"""``generate`` of ``transformers`` as a library: prompts, with the settings of the float model's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from edgeq.formats.json_file import read_json_object
from edgeq.models.cache import read, store
from edgeq.parity.meaning.library import Library, NotCheckedError, Reading, Refusal, Replaceable
from edgeq.parity.meaning.samples import Sample
from edgeq.quiet import quiet_transformers

NEW_TOKENS = 24
"""Tokens that are asked for where the model's own settings do not say fewer."""
_LENGTHS = ("max_new_tokens", "max_length")
_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
_SETTINGS_FILE = "generation_config.json"


@dataclasses.dataclass(frozen=True)
class Generated:
    """A text that the library generated.

    Attributes:
        ids: New tokens.
        score: With beam search its score, else None.
        scores: float32 ``[len(ids), vocabulary]`` that greedy tokens were chosen by, rules applied; None with beams.
    """

    ids: list[int]
    score: float | None
    scores: np.ndarray | None


class Generator(Library):
    """``AutoModelForCausalLM`` or ``AutoModelForSeq2SeqLM`` on the float model's own folder.

    Args:
        source: The folder.
        with_encoder: True for an encoder-decoder.
        cache_dtype: Type to which keys and values are rounded, as bundles store them.

    Raises:
        NotCheckedError: If ``transformers`` does not load the folder.
    """

    def __init__(self, source: Path, *, with_encoder: bool, cache_dtype: torch.dtype) -> None:
        self.name = f"transformers {transformers.__version__}, generate"
        self._with_encoder, self._cache_dtype = with_encoder, cache_dtype
        kind = transformers.AutoModelForSeq2SeqLM if with_encoder else transformers.AutoModelForCausalLM
        try:
            with quiet_transformers():
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
                self._model: Any = kind.from_pretrained(source, dtype=torch.float32, local_files_only=True).eval()
        except Exception as error:  # a folder that it does not like ends in whatever then fails
            raise NotCheckedError(f"transformers does not load {source} ({type(error).__name__}: {error})") from error
        self._replaceable = Replaceable(self._model)
        stored = read_json_object(source / _SETTINGS_FILE) if (source / _SETTINGS_FILE).is_file() else {}
        self._has_length = any(0 < (stored.get(key) or 0) <= NEW_TOKENS for key in _LENGTHS)

    def let_go(self) -> None:
        """See :meth:`Library.let_go`."""
        self._replaceable.let_go()

    def use(self, model: nn.Module) -> None:
        """See :meth:`Library.use`."""
        self._replaceable.use(model)

    def read(self, sample: Sample) -> Reading | Refusal:
        """Returns the tokens of a prompt, and the logits of the first new token."""
        try:
            given = self._given(str(sample.text))
            with _quiet():
                found = self._model.generate(
                    **given, **self._plain(), max_new_tokens=1, return_dict_in_generate=True, output_logits=True
                )
        except Exception as error:
            return Refusal(f"{type(error).__name__}: {error}")
        ids = tuple(given["input_ids"][0].tolist())
        return Reading(ids, None, None, found.logits[0][0].numpy().astype(np.float64))

    @property
    def settings(self) -> Any:
        """The ``GenerationConfig`` that governs."""
        return self._model.generation_config

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn by chance."""
        return bool(self.settings.do_sample)

    @property
    def filters(self) -> dict[str, float]:
        """What tokens are drawn with; transformers takes what is not set for nothing."""
        found = {name: getattr(self.settings, name) for name in _NEUTRAL}
        return {name: float(_NEUTRAL[name] if value is None else value) for name, value in found.items()}

    @property
    def beams(self) -> int:
        """Texts that beam search keeps; 1 without."""
        return int(self.settings.num_beams or 1)

    def new_tokens(self, sample: Sample, *, context: int) -> int | None:
        """Returns how many tokens to ask for; None leaves it to the settings."""
        if self._has_length:
            return None
        read = 0 if self._with_encoder else len(self._given(str(sample.text))["input_ids"][0])
        return max(1, min(NEW_TOKENS, context - read))

    def generate(self, sample: Sample, new_tokens: int | None) -> Generated:
        """Generates as the settings say, but for drawing by chance: greedily, or by beam search."""
        given = self._given(str(sample.text))
        length = {} if new_tokens is None else {"max_new_tokens": new_tokens}
        with _quiet():
            found = self._model.generate(
                **given,
                **length,
                past_key_values=self._empty_cache(),
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
            )
        start = 1 if self._with_encoder else given["input_ids"].shape[1]
        ids = found.sequences[0, start:].tolist()
        if self.beams > 1:
            return Generated(ids, float(found.sequences_scores[0]), None)
        return Generated(ids, None, np.stack([scores[0].float().numpy() for scores in found.scores]))

    def leads(self, sample: Sample, ids: list[int], pair: tuple[int, int]) -> float:
        """Returns by how much the logit of one token is above another's after a beginning."""
        logits = self._logits_after(sample, ids)
        return float(logits[pair[0]] - logits[pair[1]])

    def drawable(self, sample: Sample, ids: list[int]) -> np.ndarray:
        """Tells for each token whether the settings allow to draw it after a beginning: bool ``[vocabulary]``."""
        given = self._given(str(sample.text))
        if self._with_encoder:
            start = self.settings.decoder_start_token_id
            given["decoder_input_ids"] = torch.tensor([[start, *ids]])
        else:
            given["input_ids"] = torch.cat([given["input_ids"], torch.tensor([ids], dtype=torch.int64)], dim=1)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        with _quiet():
            found = self._model.generate(
                **given,
                past_key_values=self._empty_cache(),
                max_new_tokens=1,
                do_sample=True,
                return_dict_in_generate=True,
                output_scores=True,
            )
        return np.isfinite(found.scores[0][0].numpy())

    def decode(self, ids: list[int]) -> str:
        """Returns the text of new tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _logits_after(self, sample: Sample, ids: list[int]) -> np.ndarray:
        given = self._given(str(sample.text))
        if self._with_encoder:
            given["decoder_input_ids"] = torch.tensor([[self.settings.decoder_start_token_id, *ids]])
        else:
            given["input_ids"] = torch.cat([given["input_ids"], torch.tensor([ids], dtype=torch.int64)], dim=1)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        with torch.no_grad():
            return self._model(**given, past_key_values=self._empty_cache(), use_cache=True).logits[0, -1].numpy()

    def _given(self, text: str) -> dict[str, torch.Tensor]:
        found = self._tokenizer(text, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    def _plain(self) -> dict[str, Any]:
        return {"past_key_values": self._empty_cache(), "do_sample": False, "num_beams": 1}

    def _empty_cache(self) -> Any:
        if not self._with_encoder:
            return _RoundedCache(self._cache_dtype)
        return EncoderDecoderCache(_RoundedCache(self._cache_dtype), _RoundedCache(self._cache_dtype))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the advice from the terminal that one token is fewer than a model's least length."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _RoundedCache(DynamicCache):
    """A cache whose keys and values have been rounded on the way in, as those of a bundle are."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._rounded_to = dtype

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *rest: Any, **named: Any) -> Any:
        """Rounds and appends; see ``DynamicCache``."""
        kept = [read(store(states, self._rounded_to)) for states in (key_states, value_states)]
        return super().update(*kept, *rest, **named)
