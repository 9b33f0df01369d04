"""Masked language models: cross-entropy at tokens that were left out (Devlin et al., 2019)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from edgeq.distill.labels import NO_LABEL
from edgeq.errors import UsageError
from edgeq.evaluate.masks import masked_tokens, read_masked_texts
from edgeq.models import ModelAdapter
from edgeq.training.examples import ExampleSet, Masking
from edgeq.training.figures import Figures
from edgeq.training.kinds.base import Kind, Reading


def _examples(path: Path, reading: Reading) -> ExampleSet:
    """Texts: to train on whole, with other tokens left out each time; to evaluate with the same ones always."""
    tokenizer = reading.tokenizer
    if tokenizer.mask_token_id is None:
        raise UsageError(f"{path}: the tokenizer of the model has no mask token, so no word can be left out")
    mask, special = int(tokenizer.mask_token_id), tuple(map(int, tokenizer.all_special_ids))
    rows, labels = [], []
    for number, text in enumerate(read_masked_texts(path).examples):
        tokens = tokenizer(text, truncation=True, max_length=reading.max_length, return_token_type_ids=True)
        masked = masked_tokens(tokens, list(special), mask=mask, seed=number)
        own = np.full(len(tokens["input_ids"]), NO_LABEL, np.int32)
        own[masked.places] = masked.wanted
        rows.append(tokens if reading.split == "train" else masked.tokens)
        labels.append(own)
    inputs = [np.array(row["input_ids"], np.int32) for row in rows]
    masking = Masking(mask, special, reading.adapter.config.vocab_size) if reading.split == "train" else None
    return ExampleSet(inputs, reading.pad, reading.types(rows), labels, masking=masking)


def _rows(output: torch.Tensor, batch: dict[str, torch.Tensor], _: ModelAdapter) -> torch.Tensor:
    """Right and all masks of each text, and their loss."""
    labels = batch["labels"]
    counted = labels != NO_LABEL
    losses = functional.cross_entropy(
        output.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none"
    )
    right = (output.argmax(dim=-1) == labels) & counted
    return torch.stack([part.double().sum(dim=1) for part in (right, counted, losses)], dim=1)


def _figures(rows: np.ndarray, _: ExampleSet) -> Figures:
    right, count, loss = rows.sum(axis=0)
    values = {"top-1": float(right / count), "loss": float(loss / count)} if count else {"top-1": 0.0, "loss": math.nan}
    return Figures("top-1", values)


MASKS = Kind(_examples, _rows, _figures)
