"""``run``: a bundle at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import print_json, print_json_line
from edgeq.cli.texts import InputText, join_results, read_json_lines, read_lines, read_table
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.targets.runtime.beams import Beams
    from edgeq.targets.runtime.loader import Bundle
    from edgeq.targets.runtime.seq2seq import Rewritten
    from edgeq.targets.runtime.text import TextResult

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


@verb(
    "run",
    example='run ./run/bundles/host --text "A cat sat on the mat."\nrun ./run/bundles/host --file texts.txt\n'
    'run ./run/bundles/host --pair "A cat sat." "An animal sat."\n'
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
        str | None, typer.Option("--column", help="Where --jsonl and --csv have the text. Default: text or sentence.")
    ] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option("--pair", help="Two texts that the model reads together.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="UTF-8 file with a pair of texts a line, a tab between them.")
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option("--prompt-name", help="Sentence models: which prompt is put before every text.")
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
    """Embed, classify, summarise or infill texts; prints one JSON object a text, one a line.

    With --json, prints one JSON list instead of lines. A blank line keeps its place, with no result. An encoder-decoder
    generates with the settings of its generation_config.json, without it greedily and at most 128 tokens; options
    override both.
    """
    from edgeq.targets.runtime.loader import load
    from edgeq.targets.runtime.settings import changed_sampling
    from edgeq.targets.runtime.text import read_pairs, run_texts

    couples = [*([pair] if pair is not None else []), *(read_pairs(pairs) if pairs is not None else [])]
    inputs = _inputs(text or [], file, jsonl, table, column, couples=couples)
    texts = [one.text for one in inputs if isinstance(one.text, str) and one.text]
    loaded = load(bundle, threads=threads)
    lengths, beams = (max_new_tokens, min_new_tokens), (num_beams, length_penalty, early_stopping)
    writing = (*lengths, *beams, no_repeat_ngram_size, repetition_penalty)
    results: Iterable[TextResult | Rewritten]
    if loaded.manifest.model.task == "seq2seq":
        if couples or prompt_name is not None:
            raise UsageError(f"bundle {bundle} rewrites single texts; leave --pair, --pairs and --prompt-name out")
        results = loaded.rewrite(
            texts,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            sampling=changed_sampling(loaded.generation.settings, repetition_penalty=repetition_penalty),
            beams=_beams(loaded, num_beams, length_penalty, early_stopping),
        )
    elif any(option is not None for option in writing):
        raise UsageError(
            f"bundle {bundle} writes no texts, so --max-new-tokens and the like do not apply; leave them out"
        )
    else:
        results = run_texts(loaded, [one.text for one in inputs if one.text], prompt_name=prompt_name)
    if as_json:
        print_json(list(join_results(inputs, results)))
        return
    for joined in join_results(inputs, results):
        print_json_line(joined)


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
            "there is nothing to run: give --text TEXT, --file FILE, --jsonl FILE, --csv FILE, --pair TEXT TEXT or "
            "--pairs FILE"
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
