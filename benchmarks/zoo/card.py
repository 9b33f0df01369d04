"""Model cards of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.zoo.figures import Sample

_WIKITEXT = (
    "[WikiText-2](https://arxiv.org/abs/1609.07843) (Merity et al., 2016; articles of the English Wikipedia), "
    "licence CC BY-SA 3.0"
)
_SCITLDR = "[SciTLDR](https://github.com/allenai/scitldr) (Cachola et al., 2020), licence Apache-2.0"


@dataclass(frozen=True)
class Card:
    """What the card of one model says beside its figures.

    Attributes:
        summary: The model in a sentence or two.
        front: Lines of the card's YAML head.
        data: Data sets and their licences.
        training: How it was trained.
        limits: What it cannot do.
    """

    summary: str
    front: tuple[str, ...]
    data: tuple[str, ...]
    training: str
    limits: str


CARDS = {
    "gpt2-wikitext2": Card(
        summary=(
            "A small model of the GPT-2 architecture (6 layers, width 256, 4 heads, context 512, byte-level BPE "
            "of 8192 entries, tied head), trained by this project from random weights on WikiText-2. It exists "
            "so that compression, export and generation can be shown and measured on a model that has learnt "
            "something; it is no copy or relative of OpenAI's GPT-2 weights."
        ),
        front=("license: cc-by-sa-3.0", "language: en", "pipeline_tag: text-generation"),
        data=(_WIKITEXT,),
        training=(
            "AdamW (betas 0.9, 0.95, weight decay 0.1 on matrices), warm-up, constant rate, cosine decay, gradient "
            "norm at most 1, bfloat16 autocast with float32 weights, dropout outside attention. Three steps "
            "in four train on sequences of 256 tokens, the fourth on the whole context, so that every position is "
            "trained. Articles are separated by `<|endoftext|>`."
        ),
        limits=(
            "It has read two million words a few times at most: it writes in the manner of an encyclopaedia, soon "
            "repeats itself, and knows nothing. `<unk>` stands for a rare word in WikiText-2, so it writes that too "
            "unless the word is banned. The tokenizer joins WikiText's split punctuation (` , `, ` @-@ `) to the "
            "words before it reads; perplexity per word divides by the words of the original file, ends of "
            "lines included, and is over a text in which rare words are already replaced by `<unk>`."
        ),
    ),
    "gpt2-wikitext2-plateau": Card(
        summary=(
            "`gpt2-wikitext2`, trained by this project until the loss on held-out text stopped improving: the same "
            "architecture (6 layers, width 256, 4 heads, context 512, byte-level BPE of 8192 entries, tied head), "
            "tokenizer and text. It is the teacher of the GPT-2 tables in benchmarks/claims, where a model that still "
            "improves would make training on look like compression; it is no copy or relative of OpenAI's weights."
        ),
        front=("license: cc-by-sa-3.0", "language: en", "pipeline_tag: text-generation"),
        data=(_WIKITEXT,),
        training=(
            "From the weights of `gpt2-wikitext2`: AdamW (betas 0.9, 0.95, weight decay 0.1 on matrices), warm-up, "
            "constant rate until validation stopped improving, cosine decay, gradient norm at most 1, float32 weights, "
            "bfloat16 autocast on processors that multiply it, dropout outside attention. The weights are a moving "
            "average over the steps. Three steps in four train on sequences of 256 tokens, the fourth on the whole "
            "context."
        ),
        limits=(
            "It has read two million words many times over: what it knows of the world is what they say. `<unk>` "
            "stands for a rare word in WikiText-2, so it writes that too unless the word is banned; perplexity per "
            "word divides by the words of the original file, ends of lines included, over a text in which rare words "
            "are `<unk>`."
        ),
    ),
    "bart-infill-scitldr": Card(
        summary=(
            "A small model of the BART architecture (3 + 3 layers, width 256, 4 heads, 512 positions, byte-level "
            "BPE of 8192 entries, one shared embedding and head), trained by this project from random weights: "
            "text infilling on WikiText-2, then one-sentence summaries of abstracts (SciTLDR). It is no copy or "
            "relative of Facebook's BART weights."
        ),
        front=("license: cc-by-sa-3.0", "language: en", "pipeline_tag: summarization"),
        data=(_WIKITEXT, _SCITLDR),
        training=(
            "AdamW (betas 0.9, 0.95, weight decay 0.1 on matrices), warm-up, constant rate, cosine decay, gradient "
            "norm at most 1, bfloat16 autocast with float32 weights. Infilling replaces spans of Poisson(3) tokens, "
            "30% of a text, by one `<mask>` each; every fourth step of the second stage goes on infilling."
        ),
        limits=(
            "It has read two million words and two thousand abstracts: its summaries have the form of a summary "
            "and share words with the abstract, no more. ROUGE is computed by this project (lower-cased words, no "
            "stemming, best of the references) and is not comparable to the digit with other tools."
        ),
    ),
}


def _block(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.strip().splitlines())


def write_card(folder: Path, name: str, *, record: dict[str, Any], samples: Sequence[Sample], note: str = "") -> None:
    """Writes ``README.md`` of a zoo folder.

    Args:
        folder: The zoo folder.
        name: A key of ``CARDS``.
        record: Command, parameters, steps, minutes and figures, as ``publish`` collects them.
        samples: What the model wrote.
        note: What else there is to know about this run; empty if nothing.
    """
    card = CARDS[name]
    rows = [f"| {row['data']} | {row['name']} | {row['value']:.2f} |" for row in record["figures"]]
    parts = [
        "\n".join(["---", *card.front, "tags:", "- trained-by-edgeq", "---"]),
        f"# {name}",
        card.summary,
        "\n".join(["## Figures", "", "Measured on the float16 weights as they lie here, computing in float32.", ""])
        + "\n".join(["\n| data | figure | value |", "|---|---|---|", *rows]),
        "## Data\n\n" + "\n".join(f"- {line}" for line in card.data),
        "The weights are a work made from that text; where its licence reaches them, it applies.",
        f"## Training\n\n{card.training} {note}".rstrip(),
        f"{record['parameters']:,} parameters, {record['steps']:,} steps, {record['minutes']} minutes on two shared "
        "CPU cores; every validation and loss is in `training-log.jsonl`. The command, from the repository's root "
        "(DATA holds the data sets' folders, RUN is a new folder):",
        "```\n" + record["command"] + f"\npython -m benchmarks.zoo.publish {name} --run RUN --data DATA "
        f"--out models/zoo/{name}\n```",
        f"## Limits\n\n{card.limits}",
        "## What it writes",
    ]
    for sample in samples:
        parts += [f"Given ({sample.how}):", _block(sample.given), "it writes:", _block(sample.text)]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
