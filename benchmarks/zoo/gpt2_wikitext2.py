"""Trains ``gpt2-wikitext2``: a GPT-2 architecture of 7 million parameters, from nothing, on WikiText-2.

Run from the repository's root; a run that was stopped goes on where it was:

    python -m benchmarks.zoo.gpt2_wikitext2 --data DATA --out RUN
"""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from benchmarks.zoo import options
from benchmarks.zoo.bpe import save_tokenizer, train_bpe
from benchmarks.zoo.corpus import Blocks, read_articles, token_stream
from benchmarks.zoo.loop import Plan, train
from benchmarks.zoo.schedule import Schedule
from edgeq.errors import UsageError
from edgeq.files import Output, new_folder
from edgeq.training.bfloat16 import multiplies_bfloat16

SEPARATOR = "<|endoftext|>"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
POSITIONS = 512
SHORT = 256  # most steps train on sequences of this length: half the attention, and twice the beginnings
LONG_EVERY = 4  # every so many steps the whole context is used, so that all positions learn


def configuration(entries: int, *, dropout: float) -> GPT2Config:
    """Returns the model's configuration for a vocabulary of ``entries``."""
    return GPT2Config(
        vocab_size=entries,
        n_positions=POSITIONS,
        n_embd=256,
        n_layer=6,
        n_head=4,
        # The same function as GPT-2's "gelu_new", in one kernel instead of eight.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,  # dropout inside attention would turn off the fused kernel
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


def next_token_loss(model: PreTrainedModel, blocks: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    """Returns the cross entropy of each block's tokens after the first, in nats.

    Args:
        model: A causal language model.
        blocks: Ids, int64 ``[batch, length + 1]``.
        reduction: As in ``torch.nn.functional.cross_entropy``.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_bfloat16("cpu")):
        logits = model(input_ids=blocks[:, :-1], use_cache=False).logits
    targets = blocks[:, 1:].flatten()
    return functional.cross_entropy(logits.flatten(0, 1).float(), targets, reduction=reduction)


def stream_loss(model: PreTrainedModel, stream: np.ndarray, *, batch: int = 8) -> tuple[float, int]:
    """Returns the summed loss over a stream, in blocks of the whole context, and the number of tokens."""
    total, count = 0.0, (len(stream) - 1) // POSITIONS
    starts = np.arange(count) * POSITIONS
    for chunk in np.array_split(starts, math.ceil(count / batch)):
        rows = np.stack([stream[start : start + POSITIONS + 1] for start in chunk]).astype(np.int64)
        total += float(next_token_loss(model, torch.from_numpy(rows), reduction="sum"))
    return total, count * POSITIONS


@dataclass(frozen=True)
class LanguageModelling:
    """Next-token prediction; see ``benchmarks.zoo.loop.Task``."""

    blocks: Blocks
    held_out: np.ndarray
    tokens_per_step: int

    def loss(self, model: PreTrainedModel, *, step: int) -> torch.Tensor:
        """Returns the loss of one step's blocks, cut in two unless it is a step of whole contexts."""
        rows = self.blocks.at(step)
        if step % LONG_EVERY:
            rows = np.concatenate([rows[:, : SHORT + 1], rows[:, SHORT:]])
        return next_token_loss(model, torch.from_numpy(rows))

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Returns mean loss and perplexity per token of the held-out stream."""
        total, count = stream_loss(model, self.held_out)
        return {"loss": total / count, "perplexity": math.exp(total / count)}


def prepare_tokenizer(data: Path, out: Path, *, entries: int, start: str | None = None) -> Tokenizer:
    """Returns the run's tokenizer, copied from ``start`` or trained if ``out/tokenizer`` does not exist yet."""
    folder = out / "tokenizer"
    if not folder.exists() and start is not None:
        with new_folder(folder, Output("zoo")) as new:
            for file in _TOKENIZER_FILES:
                shutil.copy(Path(start) / file, new / file)
    if not folder.exists():
        articles = read_articles(data / "wikitext2" / "train.txt")
        tokenizer = train_bpe(articles, entries=entries, special=[SEPARATOR])
        with new_folder(folder, Output("zoo")) as new:
            roles = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "pad_token": SEPARATOR}
            save_tokenizer(tokenizer, new, positions=POSITIONS, roles=roles)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def new_model(entries: int, *, dropout: float, start: str | None = None) -> GPT2LMHeadModel:
    """Returns the model before the first step: random, or with the weights of the folder ``start``.

    Raises:
        UsageError: If the weights are those of another architecture.
    """
    model = GPT2LMHeadModel(configuration(entries, dropout=dropout))
    if start is not None:
        weights = GPT2LMHeadModel.from_pretrained(start, local_files_only=True, dtype=torch.float32).state_dict()
        wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if wanted != {name: tensor.shape for name, tensor in weights.items()}:
            raise UsageError(f"{start} holds another architecture than the one trained here; omit --start")
        model.load_state_dict(weights)
    return model


def _arguments() -> argparse.Namespace:
    parser = options.parser(__doc__ or "")
    parser.add_argument("--steps", type=int, default=2500, help="may be changed on resuming, before the decay")
    parser.add_argument("--blocks", type=int, default=4, help=f"blocks of {POSITIONS} tokens in a step")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--start", help="folder of a model to go on from, with its tokenizer")
    parser.add_argument("--average", type=float, help="part of itself that the average of the weights keeps at a step")
    parser.add_argument("--patience", type=int, help="validations without a better one before the rate falls")
    return parser.parse_args()


def main() -> None:
    """Trains; the result is ``OUT/best``, which ``benchmarks.zoo.publish`` turns into a zoo folder."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    options.record_run("benchmarks.zoo.gpt2_wikitext2", arguments)
    tokenizer = prepare_tokenizer(arguments.data, arguments.out, entries=arguments.entries, start=arguments.start)
    files = {part: arguments.data / "wikitext2" / f"{part}.txt" for part in ("train", "valid")}
    streams = {part: token_stream(read_articles(files[part]), tokenizer, separator=0) for part in files}
    blocks = Blocks(streams["train"], length=POSITIONS, per_step=arguments.blocks, seed=arguments.seed)
    # A quarter of the held-out text is enough to compare states of one run; publishing measures all of it.
    held_out = streams["valid"][: len(streams["valid"]) // 4]
    model = new_model(arguments.entries, dropout=arguments.dropout, start=arguments.start)
    print(f"{model.num_parameters()} parameters, {len(streams['train'])} training tokens,", end=" ")
    print(f"{blocks.steps_per_epoch} steps an epoch", flush=True)
    schedule = Schedule(arguments.rate, arguments.warmup, arguments.steps, arguments.decay)
    plan = Plan(
        schedule,
        validate_every=arguments.validate_every,
        save_seconds=arguments.save_seconds,
        average=arguments.average,
        patience=arguments.patience,
    )
    task = LanguageModelling(blocks, held_out, tokens_per_step=arguments.blocks * POSITIONS)
    train(model, task, folder=arguments.out, plan=plan)


if __name__ == "__main__":
    main()
