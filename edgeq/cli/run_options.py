"""Options of verbs that call bundles with texts: where the texts come from, and what is asked of the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.texts import InputText, read_json_lines, read_lines, read_table
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of the kernels; the results do not depend on it. Default: OMP_NUM_THREADS or all cores."
    ),
]
MinNewTokens = Annotated[
    int | None, typer.Option("--min-new-tokens", help="Smallest number of tokens before the text may end.")
]
NoRepeatNgramSize = Annotated[
    int | None, typer.Option("--no-repeat-ngram-size", help="Repeat no sequence of this many tokens; 0 allows all.")
]

_TAKEN = {
    "embed": ("prompt_name", "on_long", "max_tokens"),
    "classify": ("prompt_name", "on_long", "max_tokens"),
    "tag": ("on_long", "max_tokens", "overlap", "aggregation", "ignore_labels"),
    "answer": ("max_tokens", "overlap", "top_k", "max_answer_tokens", "allow_no_answer"),
    "fill": ("on_long", "max_tokens", "top_k", "targets"),
    "rank": ("prompt_name", "on_long", "max_tokens", "top_k"),
    "seq2seq": (
        *("max_new_tokens", "min_new_tokens", "no_repeat_ngram_size", "repetition_penalty", "num_beams"),
        *("length_penalty", "early_stopping"),
    ),
    "generate": (),
}
"""Options that bundles of a task take besides texts."""
_RENAMED = {
    "answer": {
        "max_tokens": "max_seq_len",
        "overlap": "doc_stride",
        "max_answer_tokens": "max_answer_len",
        "allow_no_answer": "handle_impossible_answer",
    }
}
"""What an option is called in Python, where that follows transformers."""


def _text(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Texts")


def _asked(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="What the model does with them")


def _generated(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Encoder-decoders")


@dataclasses.dataclass(frozen=True)
class TextInputs:
    """Where the texts come from."""

    text: Annotated[list[str] | None, _text("A text; repeatable.", "--text")] = None
    file: Annotated[Path | None, _text("UTF-8 file with one text per line; - is standard input.", "--file")] = None
    jsonl: Annotated[
        Path | None, _text("File with one JSON object per line; id and other fields are kept in the output.", "--jsonl")
    ] = None
    table: Annotated[
        Path | None, _text("CSV table with a header (.tsv: with tabs); other columns are kept in the output.", "--csv")
    ] = None
    column: Annotated[
        str | None,
        _text("Field or column of the text in --jsonl and --csv. Default: text, sentence or question.", "--column"),
    ] = None
    pair: Annotated[tuple[str, str] | None, _text("Two texts that the model takes as one input.", "--pair")] = None
    pairs: Annotated[
        Path | None, _text("UTF-8 file with one pair of texts per line, separated by a tab.", "--pairs")
    ] = None
    question: Annotated[str | None, _text("A question to answer from --context.", "--question")] = None
    context: Annotated[str | None, _text("Text that holds the answer to --question.", "--context")] = None
    query: Annotated[str | None, _text("Query to sort --documents by, best match first.", "--query")] = None
    documents: Annotated[
        Path | None, _text("UTF-8 file with one document per line; - is standard input.", "--documents")
    ] = None

    def read(self) -> list[InputText]:
        """Returns all texts, in the order of the options.

        Raises:
            UsageError: If there is none, or options do not fit together.
        """
        if (self.question is None) != (self.context is None) or (self.query is None) != (self.documents is None):
            raise UsageError("--question belongs with --context, and --query with --documents; give both")
        couples, texts, file = self._couples(), self.text or [], self.documents or self.file
        if not any(source is not None for source in (file, self.jsonl, self.table)) and not texts and not couples:
            raise UsageError(
                "there is no text: give --text TEXT, --file FILE, --jsonl FILE, --csv FILE, --pair TEXT TEXT, "
                "--pairs FILE, --question TEXT --context TEXT or --query TEXT --documents FILE"
            )
        if self.column is not None and self.jsonl is None and self.table is None:
            raise UsageError("--column belongs to --jsonl and --csv; leave it out")
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                raise UsageError(f"text {number} is empty; give at least one word")
        inputs = [InputText(text) for text in texts]
        inputs += read_lines(file) if file is not None else []
        inputs += read_json_lines(self.jsonl, self.column) if self.jsonl is not None else []
        inputs += read_table(self.table, self.column) if self.table is not None else []
        inputs += [InputText(couple) for couple in couples]
        if not any(one.text for one in inputs):
            raise UsageError("there is no text: every line is blank")
        return inputs

    def _couples(self) -> list[tuple[str, str]]:
        from edgeq.targets.runtime.text_files import read_pairs

        asked = self.question is not None and self.context is not None
        couples = [(self.question or "", self.context or "")] if asked else []
        couples += [self.pair] if self.pair is not None else []
        return couples + (read_pairs(self.pairs) if self.pairs is not None else [])


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """What is asked of the model; not every option applies to every task."""

    prompt_name: Annotated[
        str | None, _asked("Sentence models: name of the prompt to put before every text.", "--prompt-name")
    ] = None
    on_long: Annotated[
        str | None,
        _asked(
            "What to do with a text longer than the model takes: error, cut, or split it into rows (embeddings and "
            "logits are averaged by tokens). Default: the setting in the model's folder.",
            "--on-long",
        ),
    ] = None
    max_tokens: Annotated[int | None, _asked("Largest number of tokens in a text or row.", "--max-tokens")] = None
    overlap: Annotated[int | None, _asked("Tokens shared by two rows of a long text.", "--overlap")] = None
    aggregation: Annotated[
        str | None, _asked("How token labels are joined: none, simple (default), first, average, max.", "--aggregation")
    ] = None
    ignore_labels: Annotated[
        str | None, _asked("Labels to leave out, separated by commas. Default: O.", "--ignore-labels")
    ] = None
    top_k: Annotated[
        int | None, _asked("Number of answers (default 1), tokens for a mask (5) or documents (all).", "--top-k")
    ] = None
    max_answer_tokens: Annotated[
        int | None, _asked("Largest number of tokens in an answer. Default: 15.", "--max-answer-tokens")
    ] = None
    allow_no_answer: Annotated[bool, _asked("Allow the result 'no answer'.", "--allow-no-answer")] = False
    targets: Annotated[
        str | None, _asked("Tokens to choose from for a mask, separated by commas.", "--targets")
    ] = None
    max_new_tokens: Annotated[
        int | None, _generated("Largest number of tokens to generate.", "--max-new-tokens", "-n")
    ] = None
    min_new_tokens: Annotated[
        int | None, _generated("Smallest number of tokens before the text may end.", "--min-new-tokens")
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None, _generated("Repeat no sequence of this many tokens; 0 allows all.", "--no-repeat-ngram-size")
    ] = None
    repetition_penalty: Annotated[
        float | None, _generated("Penalty for tokens that the text already has; 1 is none.", "--repetition-penalty")
    ] = None
    num_beams: Annotated[int | None, _generated("Number of beams in beam search; 1 is greedy.", "--num-beams")] = None
    length_penalty: Annotated[
        float | None, _generated("Beam search: above 0 favours longer texts.", "--length-penalty")
    ] = None
    early_stopping: Annotated[
        bool | None,
        _generated("Beam search: stop when as many texts as beams have ended.", "--early-stopping/--no-early-stopping"),
    ] = None

    def of(self, bundle: Bundle, task: str) -> dict[str, Any]:
        """Returns the options that were given, under their names in Python.

        Raises:
            UsageError: If one does not apply to the task.
        """
        values = vars(self) | {"allow_no_answer": self.allow_no_answer or None}
        options = {name: value for name, value in values.items() if value is not None}
        wrong = [name for name in options if name not in _TAKEN[task]]
        if wrong:
            names = ", ".join("--" + name.replace("_", "-") for name in wrong)
            own = bundle.manifest.model.task
            raise UsageError(f"bundle {bundle.path} is for {own!r}, so {names} does not apply; leave it out")
        for name in {"ignore_labels", "targets"} & options.keys():
            options[name] = options[name].split(",")
        return {_RENAMED.get(task, {}).get(name, name): value for name, value in options.items()}
