"""Trains ``bart-infill-scitldr``: a BART architecture of 7 million parameters, from nothing.

First text infilling on WikiText-2, on short texts to begin with, then SciTLDR's one-sentence summaries of
abstracts, with every fourth step still infilling so that the model goes on being able to. Run from the
repository's root; a run that was stopped goes on where it was:

    python -m benchmarks.zoo.bart_infill_scitldr --data DATA --out RUN
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, processors
from torch.nn import functional
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from benchmarks.zoo import options
from benchmarks.zoo.bpe import save_tokenizer, train_bpe
from benchmarks.zoo.corpus import Blocks, read_articles, token_stream
from benchmarks.zoo.infilling import infill
from benchmarks.zoo.loop import Plan, train
from benchmarks.zoo.schedule import Schedule
from edgeq.errors import UsageError
from edgeq.files import Output, new_folder
from edgeq.training.bfloat16 import multiplies_bfloat16

BEGIN, PAD, END, MASK = 0, 1, 2, 3  # BART's order; WikiText's "<unk>" is a plain word here
ROLES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>"}
POSITIONS = 512
MASKED_SHARE = 0.3
INFILL_EVERY = 4  # during summarisation
WRITING = {"num_beams": 4, "no_repeat_ngram_size": 3, "max_new_tokens": 60}  # unless told otherwise
SHORTER = 4  # how much shorter the short texts are, and how many more there are in a step

Pair = tuple[np.ndarray, np.ndarray]  # source ids, target ids; both with begin and end


def configuration(entries: int, *, dropout: float) -> BartConfig:
    """Returns the model's configuration for a vocabulary of ``entries``."""
    return BartConfig(
        vocab_size=entries,
        max_position_embeddings=POSITIONS,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        # With BART's own 0.02, at this width, the decoder had not learned to copy after 1500 steps.
        init_std=0.0625,
        dropout=dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        bos_token_id=BEGIN,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=END,
    )


@dataclass(frozen=True)
class Abstract:
    """An abstract and its one-sentence summaries, as text."""

    source: str
    summaries: tuple[str, ...]


def read_abstracts(file: Path) -> list[Abstract]:
    """Returns the rows of a SciTLDR file.

    Raises:
        UsageError: If the file does not exist.
    """
    if not file.is_file():
        raise UsageError(f"{file} does not exist: --data must be a folder with scitldr/ and its files")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Abstract(" ".join(row["source"]), tuple(row["target"])) for row in rows]


def prepare_tokenizer(data: Path, out: Path, *, entries: int) -> Tokenizer:
    """Returns the run's tokenizer, trained if ``out/tokenizer`` does not exist yet."""
    folder = out / "tokenizer"
    if not folder.exists():
        texts = read_articles(data / "wikitext2" / "train.txt")
        for abstract in read_abstracts(data / "scitldr" / "train.jsonl"):
            texts += [abstract.source, *abstract.summaries]
        tokenizer = train_bpe(texts, entries=entries, special=list(ROLES.values()))
        # The mask takes the place of the words and of the space before them.
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)]
        )
        with new_folder(folder, Output("zoo")) as new:
            save_tokenizer(tokenizer, new, positions=POSITIONS, roles=ROLES)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Returns the ids of a text with begin and end, cut to the model's positions."""
    ids = tokenizer.encode(text).ids
    return np.array([*ids[: POSITIONS - 1], END] if len(ids) > POSITIONS else ids, np.int64)


def infilling_pairs(blocks: np.ndarray, random: np.random.Generator) -> list[Pair]:
    """Returns each block with spans masked, and whole."""
    pairs = []
    for whole in blocks:
        noisy = infill(whole, random, mask=MASK, share=MASKED_SHARE)
        pairs.append((np.array([BEGIN, *noisy, END]), np.array([BEGIN, *whole, END])))
    return pairs


def reconstruction_loss(
    model: PreTrainedModel, pairs: list[Pair], *, reduction: str = "mean"
) -> tuple[torch.Tensor, int]:
    """Returns the cross entropy of the targets given the sources, in nats, and the number of tokens."""
    sources, targets = (
        torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(pair[side]) for pair in pairs], batch_first=True, padding_value=PAD
        )
        for side in (0, 1)
    )
    inputs = torch.cat([torch.full_like(targets[:, :1], END), targets[:, :-1]], dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_bfloat16("cpu")):
        logits = model(
            input_ids=sources, attention_mask=(sources != PAD).long(), decoder_input_ids=inputs, use_cache=False
        ).logits
    wanted = targets.flatten()
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=PAD, reduction=reduction)
    return loss, int((wanted != PAD).sum())


@dataclass(frozen=True)
class InfillThenSummarise:
    """The two stages; see ``benchmarks.zoo.loop.Task``."""

    blocks: Blocks
    short_steps: int
    abstracts: list[tuple[np.ndarray, list[np.ndarray]]]
    held_out_blocks: np.ndarray
    held_out_abstracts: list[Pair]
    infill_steps: int
    batch: int
    seed: int

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an infilling step; summaries are shorter."""
        return self.blocks.length * self.blocks.per_step

    def loss(self, model: PreTrainedModel, *, step: int) -> torch.Tensor:
        """Returns the loss of one step of the stage that ``step`` falls into."""
        random = np.random.default_rng([self.seed, 1, step])
        if step < self.infill_steps or step % INFILL_EVERY == 0:
            blocks = self._short_blocks if step < self.short_steps else self.blocks
            return reconstruction_loss(model, infilling_pairs(blocks.at(step)[:, :-1], random))[0]
        chosen = random.choice(len(self.abstracts), self.batch, replace=False)
        rows = [self.abstracts[i] for i in chosen]
        pairs = [(source, summaries[int(random.integers(len(summaries)))]) for source, summaries in rows]
        return reconstruction_loss(model, pairs)[0]

    @cached_property
    def _short_blocks(self) -> Blocks:
        length, count = self.blocks.length // SHORTER, self.blocks.per_step * SHORTER
        return Blocks(self.blocks.stream, length=length, per_step=count, seed=self.blocks.seed)

    @cached_property
    def _held_out_infilling(self) -> list[Pair]:
        return infilling_pairs(self.held_out_blocks, np.random.default_rng([self.seed, 2]))

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Returns both stages' loss per token; their sum decides which model is the best."""
        infilling = mean_loss(model, self._held_out_infilling, batch=self.batch)
        summary = mean_loss(model, self.held_out_abstracts, batch=self.batch)
        return {"loss": infilling + summary, "infilling_loss": infilling, "summary_loss": summary}


def mean_loss(model: PreTrainedModel, pairs: list[Pair], *, batch: int) -> float:
    """Returns the loss per target token of all pairs, in nats."""
    total, tokens = 0.0, 0
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))  # like lengths together: less padding
    for start in range(0, len(ordered), batch):
        loss, count = reconstruction_loss(model, ordered[start : start + batch], reduction="sum")
        total, tokens = total + float(loss), tokens + count
    return total / tokens


def held_out_blocks(stream: np.ndarray, *, length: int, count: int) -> np.ndarray:
    """Returns ``count`` blocks spread evenly over a stream, int64 ``[count, length]``."""
    starts = np.linspace(0, len(stream) - length, count).astype(np.int64)
    return np.stack([stream[start : start + length] for start in starts]).astype(np.int64)


def _task(arguments: argparse.Namespace, tokenizer: Tokenizer) -> InfillThenSummarise:
    data: Path = arguments.data
    streams = {
        part: token_stream(read_articles(data / "wikitext2" / f"{part}.txt"), tokenizer, separator=BEGIN)
        for part in ("train", "valid")
    }
    length = arguments.length - 2  # begin and end are added to each block
    train_rows = read_abstracts(data / "scitldr" / "train.jsonl")
    dev_rows = read_abstracts(data / "scitldr" / "dev.jsonl")[:200]
    return InfillThenSummarise(
        blocks=Blocks(streams["train"], length=length, per_step=arguments.batch, seed=arguments.seed),
        short_steps=arguments.short_steps,
        abstracts=[
            (encode(tokenizer, row.source), [encode(tokenizer, text) for text in row.summaries]) for row in train_rows
        ],
        held_out_blocks=held_out_blocks(streams["valid"], length=length, count=100),
        held_out_abstracts=[(encode(tokenizer, row.source), encode(tokenizer, row.summaries[0])) for row in dev_rows],
        infill_steps=arguments.infill_steps,
        batch=arguments.batch,
        seed=arguments.seed,
    )


def _arguments() -> argparse.Namespace:
    parser = options.parser(__doc__ or "")
    parser.add_argument("--infill-steps", type=int, default=1600, help="steps before summaries begin")
    parser.add_argument("--summary-steps", type=int, default=900, help="steps after that")
    parser.add_argument("--short-steps", type=int, default=900, help="first steps, whose infilled texts are short")
    parser.add_argument("--batch", type=int, default=12, help="texts in a step")
    parser.add_argument("--length", type=int, default=192, help="tokens of an infilled text")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    return parser.parse_args()


def main() -> None:
    """Trains; the result is ``OUT/best``, which ``benchmarks.zoo.publish`` turns into a zoo folder."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    options.record_run("benchmarks.zoo.bart_infill_scitldr", arguments)
    tokenizer = prepare_tokenizer(arguments.data, arguments.out, entries=arguments.entries)
    task = _task(arguments, tokenizer)
    model = BartForConditionalGeneration(configuration(arguments.entries, dropout=arguments.dropout))
    model.generation_config.update(**WRITING)
    print(f"{model.num_parameters()} parameters, {len(task.blocks.stream)} training tokens,", end=" ")
    print(f"{task.blocks.steps_per_epoch} infilling steps an epoch", flush=True)
    steps = arguments.infill_steps + arguments.summary_steps
    schedule = Schedule(arguments.rate, arguments.warmup, steps, arguments.decay)
    plan = Plan(schedule, validate_every=arguments.validate_every, save_seconds=arguments.save_seconds)
    train(model, task, folder=arguments.out, plan=plan)


if __name__ == "__main__":
    main()
