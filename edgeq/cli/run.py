"""``run``: a bundle at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import note, print_json, print_json_line
from edgeq.cli.texts import InputText, join_results, read_json_lines, read_lines, read_table
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.cli.texts import Result
    from edgeq.targets.runtime.beams import Beams
    from edgeq.targets.runtime.loader import Bundle

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the kernels; results do not depend on it.")
]
MinNewTokens = Annotated[
    int | None, typer.Option("--min-new-tokens", help="Tokens to generate before one may end the text.")
]
NoRepeatNgramSize = Annotated[
    int | None, typer.Option("--no-repeat-ngram-size", help="Repeat no sequence of this many tokens; 0 allows all.")
]
EarlyStopping = Annotated[
    bool | None,
    typer.Option(
        "--early-stopping/--no-early-stopping", help="Beam search: stop when as many texts as beams have ended."
    ),
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Penalty of tokens that the text already has; 1 is none.")
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


@verb(
    "run",
    example='run ./run/bundles/host --text "A cat sat on the mat."\nrun ./run/bundles/host --file texts.txt\n'
    'run ./run/bundles/host --pair "A cat sat." "An animal sat."\n'
    'run ./answers/bundles/host --question "Who sat?" --context "A cat sat on the mat."\n'
    'run ./reranker/bundles/host --query "cats" --documents texts.txt\n'
    'run ./bart/bundles/host --file articles.txt --num-beams 4 --max-new-tokens 60',
)
def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle for this machine.")],
    *,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="UTF-8 file with one text a line; - is standard input.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", help="File with one JSON object a line; id and other fields come back.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="CSV table with a header (.tsv: with tabs); other columns come back.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", help="Where --jsonl and --csv have the text. Default: text, sentence or question."),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option("--pair", help="Two texts that the model reads together.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="UTF-8 file with a pair of texts a line, a tab between them.")
    ] = None,
    question: Annotated[str | None, typer.Option("--question", help="A question; the answer is in --context.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Where the answer is looked for.")] = None,
    query: Annotated[str | None, typer.Option("--query", help="Sort --documents by how well they fit it.")] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="UTF-8 file with one document a line; - is standard input.")
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option("--prompt-name", help="Sentence models: which prompt is put before every text.")
    ] = None,
    on_long: Annotated[
        str | None,
        typer.Option(
            "--on-long",
            help="Longer texts than the model takes: error, cut, or split into rows (embeddings and logits are "
            "averaged by tokens). Default: as the model's folder says.",
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of a text or row.")] = None,
    overlap: Annotated[int | None, typer.Option("--overlap", help="Tokens that rows of a long text share.")] = None,
    aggregation: Annotated[
        str | None, typer.Option("--aggregation", help="Labels of tokens: none, simple (default), first, average, max.")
    ] = None,
    ignore_labels: Annotated[
        str | None, typer.Option("--ignore-labels", help="Labels that are left out, with commas between. Default: O.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Answers (default 1), tokens for a mask (5), documents (all).")
    ] = None,
    max_answer_tokens: Annotated[
        int | None, typer.Option("--max-answer-tokens", help="Most tokens of an answer. Default: 15.")
    ] = None,
    allow_no_answer: Annotated[
        bool, typer.Option("--allow-no-answer", help="That there is no answer is one too.")
    ] = False,
    targets: Annotated[
        str | None, typer.Option("--targets", help="Tokens to choose from for a mask, with commas between.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", "-n", help="Encoder-decoders: most tokens to generate.")
    ] = None,
    min_new_tokens: MinNewTokens = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    repetition_penalty: RepetitionPenalty = None,
    num_beams: Annotated[
        int | None, typer.Option("--num-beams", help="Encoder-decoders: texts that beam search keeps; 1 is greedy.")
    ] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Beam search: above 0 favours longer texts.")] = None,
    early_stopping: EarlyStopping = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embed, classify, label, answer, fill, rank, summarise or infill; prints one JSON object a text, one a line.

    With --json, prints one JSON list instead of lines. A blank line keeps its place, with no result. An encoder-decoder
    generates with the settings of its generation_config.json, without it greedily and at most 128 tokens; options
    override both. The program edgeq-run in a bundle has the same options and prints the same JSON.
    """
    from edgeq.targets.runtime.loader import load
    from edgeq.targets.runtime.text_files import read_pairs

    if (question is None) != (context is None) or (query is None) != (documents is None):
        raise UsageError("--question belongs with --context, and --query with --documents; give both")
    couples = [(question, context)] if question is not None and context is not None else []
    couples += [pair] if pair is not None else []
    couples += read_pairs(pairs) if pairs is not None else []
    inputs = _inputs(text or [], documents or file, jsonl, table, column, couples=couples)
    loaded = load(bundle, threads=threads)
    task = "rank" if query is not None else loaded.manifest.model.task
    given = {
        "prompt_name": prompt_name,
        "on_long": on_long,
        "max_tokens": max_tokens,
        "overlap": overlap,
        "aggregation": aggregation,
        "ignore_labels": None if ignore_labels is None else ignore_labels.split(","),
        "top_k": top_k,
        "max_answer_tokens": max_answer_tokens,
        "allow_no_answer": allow_no_answer or None,
        "targets": None if targets is None else targets.split(","),
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "repetition_penalty": repetition_penalty,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    results = _results(loaded, task, inputs, _options_of(loaded, task, given), query=query)
    if as_json:
        lines = list(results)
        print_json(lines)
        _note_cuts(sum(line.get("truncated", False) for line in lines), len(lines))
        return
    cut = count = 0
    for line in results:
        print_json_line(line)
        cut, count = cut + line.get("truncated", False), count + 1
    _note_cuts(cut, count)


def _options_of(loaded: Bundle, task: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, under their names in Python; all must apply to the task."""
    options = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in options if name not in _TAKEN[task]]
    if wrong:
        names = ", ".join("--" + name.replace("_", "-") for name in wrong)
        own = loaded.manifest.model.task
        raise UsageError(f"bundle {loaded.path} is for {own!r}, so {names} does not apply; leave it out")
    return {_RENAMED.get(task, {}).get(name, name): value for name, value in options.items()}


def _results(
    loaded: Bundle, task: str, inputs: list[InputText], options: dict[str, Any], *, query: str | None
) -> Iterable[dict[str, Any]]:
    """One JSON object for each text, or for each document in order."""
    from edgeq.targets.runtime.text import run_texts

    texts: list[Any] = [one.text for one in inputs if one.text]
    if query is not None:
        places = [place for place, one in enumerate(inputs) if one.text]
        ranked = (one.to_json() for one in loaded.rank(query, texts, **options))
        return ({**one, "corpus_id": places[one["corpus_id"]]} for one in ranked)
    if task in ("embed", "classify", "generate"):
        results: Iterable[Result] = run_texts(loaded, texts, **options)
    elif task == "seq2seq":
        results = _rewritten(loaded, texts, **options)
    else:
        results = getattr(loaded, task)(texts, **options)
    return join_results(inputs, results)


def _rewritten(
    loaded: Bundle,
    texts: list[Any],
    *,
    repetition_penalty: float | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    early_stopping: bool | None = None,
    **lengths: Any,
) -> Iterable[Result]:
    from edgeq.targets.runtime.settings import changed_sampling

    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"bundle {loaded.path} rewrites single texts; leave --pair and --pairs out")
    return loaded.rewrite(
        texts,
        sampling=changed_sampling(loaded.generation.settings, repetition_penalty=repetition_penalty),
        beams=_beams(loaded, num_beams, length_penalty, early_stopping),
        **lengths,
    )


def _note_cuts(cut: int, count: int) -> None:
    """Says how many texts were cut; their lines say which."""
    if cut:
        note(f'{cut} of {count} texts were cut to what the model reads: those with "truncated": true')


def _inputs(
    texts: list[str],
    file: Path | None,
    jsonl: Path | None,
    table: Path | None,
    column: str | None,
    *,
    couples: list[tuple[str, str]],
) -> list[InputText]:
    """All texts that the options name, in the order of the options."""
    if not any(source is not None for source in (file, jsonl, table)) and not texts and not couples:
        raise UsageError(
            "there is nothing to run: give --text TEXT, --file FILE, --jsonl FILE, --csv FILE, --pair TEXT TEXT, "
            "--pairs FILE, --question TEXT --context TEXT or --query TEXT --documents FILE"
        )
    if column is not None and jsonl is None and table is None:
        raise UsageError("--column belongs to --jsonl and --csv; leave it out")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UsageError(f"text {number} is empty; give at least one word")
    inputs = [InputText(text) for text in texts]
    inputs += read_lines(file) if file is not None else []
    inputs += read_json_lines(jsonl, column) if jsonl is not None else []
    inputs += read_table(table, column) if table is not None else []
    inputs += [InputText(couple) for couple in couples]
    if not any(one.text for one in inputs):
        raise UsageError("there is nothing to run: every text is blank")
    return inputs


def _beams(loaded: Bundle, count: int | None, penalty: float | None, early_stopping: bool | None) -> Beams:
    """The bundle's beams with what the caller changes of them."""
    given = {"count": count, "length_penalty": penalty, "early_stopping": early_stopping}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    beams = dataclasses.replace(loaded.generation.settings.beams, **changes)
    if beams.count == 1 and (penalty is not None or early_stopping is not None):
        raise UsageError("--length-penalty and --early-stopping belong to beam search; give --num-beams above 1")
    return beams
