"""What a trained zoo model is worth: figures and samples for its card, measured on the weights as stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import PreTrainedModel

from benchmarks.zoo import bart_infill_scitldr as bart
from benchmarks.zoo import gpt2_wikitext2 as gpt2
from benchmarks.zoo.corpus import count_words, read_articles, token_stream
from benchmarks.zoo.rouge import rouge

PROMPT = "The river"
NEW_TOKENS = 60
ABSTRACTS = 200  # of the test set: four beams on a CPU take their time


@dataclass(frozen=True)
class Figure:
    """One line of the card's table.

    Attributes:
        data: What was measured on.
        name: What was measured.
        value: The figure.
    """

    data: str
    name: str
    value: float


@dataclass(frozen=True)
class Sample:
    """Something the model wrote.

    Attributes:
        given: Prompt or source.
        how: How it was decoded.
        text: The model's text.
    """

    given: str
    how: str
    text: str


def _float32_loss(model: PreTrainedModel, stream: np.ndarray, *, batch: int = 8) -> tuple[float, int]:
    """Returns the summed loss of a stream in windows of the whole context, and its number of tokens.

    What is left after the last whole window is a shorter window of its own: no token is counted twice.
    """
    targets = len(stream) - 1
    whole = targets // gpt2.POSITIONS * gpt2.POSITIONS
    windows = [stream[start : start + gpt2.POSITIONS + 1] for start in range(0, whole, gpt2.POSITIONS)]
    batches = [np.stack(windows[start : start + batch]) for start in range(0, len(windows), batch)]
    if whole < targets:
        batches.append(stream[None, whole:])
    total = 0.0
    with torch.no_grad():
        for rows in batches:
            ids = torch.from_numpy(rows.astype(np.int64))
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            wanted = ids[:, 1:].flatten()
            total += float(functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum"))
    return total, targets


def measure_gpt2(model: PreTrainedModel, tokenizer: Tokenizer, data: Path) -> tuple[list[Figure], list[Sample]]:
    """Returns WikiText-2 perplexities of a causal model in float32, and two continuations of a prompt."""
    figures = []
    for part in ("valid", "test"):
        file = data / "wikitext2" / f"{part}.txt"
        total, tokens = _float32_loss(model, token_stream(read_articles(file), tokenizer, separator=0))
        name = f"WikiText-2 {file.stem}"
        figures.append(Figure(name, "perplexity per token", math.exp(total / tokens)))
        figures.append(Figure(name, "perplexity per word", math.exp(total / count_words(file))))
    ids = torch.tensor([[0, *tokenizer.encode(PROMPT).ids]])
    rare = tokenizer.encode(" <unk>").ids
    common = {"max_new_tokens": NEW_TOKENS, "bad_words_ids": [rare], "attention_mask": torch.ones_like(ids)}
    torch.manual_seed(0)
    ways = {
        "greedy, repetition penalty 1.2": {"do_sample": False, "repetition_penalty": 1.2},
        "sampled, top-k 40, temperature 0.8, seed 0": {"do_sample": True, "top_k": 40, "temperature": 0.8},
    }
    samples = []
    for how, options in ways.items():
        written = model.generate(ids, **common, **options)[0, ids.shape[1] :]
        samples.append(Sample(PROMPT, how, tokenizer.decode(written.tolist())))
    return figures, samples


def _summaries(model: PreTrainedModel, tokenizer: Tokenizer, sources: list[str], *, batch: int) -> list[str]:
    """Returns the model's summary of each source, by 4 beams."""
    encoded = [torch.from_numpy(bart.encode(tokenizer, source)) for source in sources]
    order = sorted(range(len(sources)), key=lambda i: len(encoded[i]))  # like lengths together: less padding
    texts = [""] * len(sources)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        ids = torch.nn.utils.rnn.pad_sequence([encoded[i] for i in chosen], batch_first=True, padding_value=bart.PAD)
        written = model.generate(ids, attention_mask=(ids != bart.PAD).long(), **bart.WRITING)
        for i, row in zip(chosen, written, strict=True):
            texts[i] = tokenizer.decode(row.tolist()).strip()
    return texts


def measure_bart(model: PreTrainedModel, tokenizer: Tokenizer, data: Path) -> tuple[list[Figure], list[Sample]]:
    """Returns ROUGE of the test set's summaries and the infilling perplexity, and samples."""
    rows = bart.read_abstracts(data / "scitldr" / "test.jsonl")[:ABSTRACTS]
    texts = _summaries(model, tokenizer, [row.source for row in rows], batch=16)
    totals = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    for row, text in zip(rows, texts, strict=True):
        for name, figure in rouge(text, row.summaries).items():
            totals[name] += figure / len(rows)
    figures = [
        Figure(f"SciTLDR test, first {len(rows)}", f"{name} F1, x100", 100 * total) for name, total in totals.items()
    ]
    stream = token_stream(read_articles(data / "wikitext2" / "valid.txt"), tokenizer, separator=bart.BEGIN)
    blocks = bart.held_out_blocks(stream, length=min(190, len(stream)), count=200)
    pairs = bart.infilling_pairs(blocks, np.random.default_rng(0))
    with torch.no_grad():
        loss = bart.mean_loss(model, pairs, batch=8)
    name = f"perplexity per token, {bart.MASKED_SHARE:.0%} masked"
    figures.append(Figure("WikiText-2 valid, infilling", name, math.exp(loss)))
    return figures, [Sample(rows[i].source, "4 beams", texts[i]) for i in range(min(2, len(rows)))]
