"""Texts for decoders: prompts of different lengths, and how the reference goes on, token for token.

Every stage reads the same tokens (teacher forcing), so that one token chosen differently does not make all
that follows incomparable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.backends import Arrays, Backend
from edgeq.models import TorchDecoder, positions
from edgeq.targets.runtime.decoder import Decoder

NEW_TOKENS = 128
_PROMPTS = 4
_LONE_PROMPT, _LONE_NEW = 5, 16
_LENGTHS = (3, 10, 17, 31)
"""Of the prompts in one batch: neighbours of multiples of 16, the width of a vector of keys."""


@dataclasses.dataclass(frozen=True)
class Continuation:
    """A batch of texts that end together.

    Attributes:
        rows: For each text its ids, int64: a prompt, then ``new`` tokens.
        new: Number of tokens after each prompt.
    """

    rows: tuple[np.ndarray, ...]
    new: int

    @property
    def prompts(self) -> list[list[int]]:
        """The ids before the new tokens."""
        return [row[: -self.new].tolist() for row in self.rows]

    @property
    def generated(self) -> np.ndarray:
        """The new tokens, int64 ``[batch, new]``."""
        return np.stack([row[-self.new :] for row in self.rows])

    @property
    def one_by_one(self) -> list[Continuation]:
        """The same texts, each a batch of its own."""
        return [Continuation((row,), self.new) for row in self.rows]

    @property
    def feed(self) -> Arrays:
        """Inputs of an exported graph but for the cache: everything that the last token was chosen from."""
        ids, mask = self._padded()
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask, queries=ids.shape[1])}

    def beginning(self, new: int) -> Continuation:
        """Returns the same texts with fewer new tokens."""
        new = min(new, self.new)
        return Continuation(tuple(row[: len(row) - self.new + new] for row in self.rows), new)

    def whole(self, run: Backend, cache: Arrays) -> Arrays:
        """Runs an exported graph on everything at once.

        Args:
            run: The graph.
            cache: Empty caches by input name.

        Returns:
            ``logits``, float32 ``[batch, new, vocabulary]``: what each new token was chosen from.
        """
        return {"logits": run({**self.feed, **cache})["logits"][:, -self.new :]}

    def step_by_step(self, run: Backend, cache: Arrays) -> Arrays:
        """Runs an exported graph on the prompts, then token by token on the cache; returns as :meth:`whole`."""
        ids, mask = self._padded()
        start, logits = 0, []
        for stop in range(ids.shape[1] - self.new + 1, ids.shape[1] + 1):
            places = positions(mask[:, :stop], queries=stop - start)
            feed = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], "position_ids": places}
            outputs = run({**feed, **cache})
            logits.append(outputs.pop("logits")[:, -1])
            cache = {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
            start = stop
        return {"logits": np.stack(logits, axis=1)}

    def in_bundle(self, bundle: Any) -> Arrays:
        """Runs a loaded bundle on the prompts, then token by token; returns as :meth:`whole`."""
        decoder = Decoder(bundle, batch=len(self.rows))
        following = ([row[[step - self.new]].tolist() for row in self.rows] for step in range(self.new - 1))
        logits = [decoder.append(tokens) for tokens in (self.prompts, *following)]
        return {"logits": np.stack(logits, axis=1)}

    def in_bundle_without_cache(self, bundle: Any, steps: Sequence[int]) -> Arrays:
        """Runs a bundle from the start of the texts for each of some steps: ``logits`` ``[batch, steps, ...]``."""
        logits = []
        for step in steps:
            ends = [len(row) - self.new + step for row in self.rows]
            read = [row[:end].tolist() for row, end in zip(self.rows, ends, strict=True)]
            logits.append(Decoder(bundle, batch=len(read)).append(read))
        return {"logits": np.stack(logits, axis=1)}

    def free_running(self, bundle: Any) -> np.ndarray:
        """Lets a bundle generate greedily on its own: int64 ``[batch, new]``."""
        decoder = Decoder(bundle, batch=len(self.rows))
        read, generated = self.prompts, []
        for _ in range(self.new):
            generated.append(decoder.append(read).argmax(axis=1))
            read = generated[-1][:, None].tolist()
        return np.stack(generated, axis=1)

    def bundle_inputs(self) -> list[Arrays]:
        """Returns the inputs of a bundle, call by call on one state: the prompts, then token by token."""
        lengths = np.array([len(row) - self.new for row in self.rows], np.int64)
        ids = np.zeros((len(self.rows), int(lengths.max())), np.int64)
        for line, prompt in enumerate(self.prompts):
            ids[line, : len(prompt)] = prompt
        calls = [{"input_ids": ids, "past_lengths": np.zeros_like(lengths), "new_lengths": lengths}]
        for step in range(self.new - 1):
            tokens = np.array([[row[step - self.new]] for row in self.rows], np.int64)
            calls.append(
                {"input_ids": tokens, "past_lengths": lengths + step, "new_lengths": np.ones_like(lengths)}
            )
        return calls

    def _padded(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of all but the last token, which nothing follows; padding in front."""
        length = max(len(row) for row in self.rows) - 1
        ids, mask = np.zeros((2, len(self.rows), length), np.int64)
        for line, row in enumerate(self.rows):
            ids[line, length - len(row) + 1 :] = row[:-1]
            mask[line, length - len(row) + 1 :] = 1
        return ids, mask


def make_continuations(
    decoder: TorchDecoder, *, vocabulary: int, longest: int, tokenizer: Any, texts: Sequence[str]
) -> list[Continuation]:
    """Lets the reference go on greedily; the same arguments give the same tokens.

    Args:
        decoder: The reference.
        vocabulary: Number of token ids.
        longest: Most tokens that the model reads.
        tokenizer: A ``transformers`` tokenizer.
        texts: What the prompts begin with; random ids follow where a text is too short.

    Returns:
        A batch of four prompts of different lengths with up to 128 new tokens, and one short text alone.
    """
    # The last token is chosen but not read, so a text may be one token longer than what the model reads.
    random = np.random.default_rng(21)
    lengths = [max(1, min(length, longest // 2 - line)) for line, length in enumerate(_LENGTHS)]
    prompts = []
    for length, text in zip(lengths, [*texts, *[""] * _PROMPTS], strict=False):
        known = [token for token in tokenizer(text, add_special_tokens=False)["input_ids"] if token < vocabulary]
        prompts.append([*known, *random.integers(0, vocabulary, length).tolist()][:length])
    together = min(NEW_TOKENS, longest + 1 - max(lengths))
    lone = [random.integers(0, vocabulary, max(1, min(_LONE_PROMPT, longest // 2))).tolist()]
    return [
        _continued(decoder, prompts, together),
        _continued(decoder, lone, min(_LONE_NEW, longest + 1 - len(lone[0]))),
    ]


def _continued(decoder: TorchDecoder, prompts: Sequence[list[int]], new: int) -> Continuation:
    width = max(map(len, prompts))
    ids, mask = np.zeros((2, len(prompts), width), np.int64)
    for line, prompt in enumerate(prompts):
        ids[line, width - len(prompt) :] = prompt
        mask[line, width - len(prompt) :] = 1
    cache: Arrays = {}
    read, chosen = ids, []
    for _ in range(new):
        outputs = decoder(read, mask, positions(mask, queries=read.shape[1]), **cache)
        read = outputs.pop("logits")[:, -1].argmax(axis=-1)[:, None]
        cache = {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
        mask = np.concatenate([mask, np.ones_like(read)], axis=1)
        chosen.append(read)
    generated = np.concatenate(chosen, axis=1)
    return Continuation(tuple(np.array([*p, *row], np.int64) for p, row in zip(prompts, generated, strict=True)), new)
