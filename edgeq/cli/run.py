"""``run``: a bundle at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import note, print_json, print_json_line
from edgeq.cli.run_options import TaskOptions, TextInputs, Threads
from edgeq.cli.texts import InputText, join_results
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.cli.texts import Result
    from edgeq.targets.runtime.beams import Beams
    from edgeq.targets.runtime.loader import Bundle


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
    texts: TextInputs,
    options: TaskOptions,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Call a bundle with texts: embed, classify, label, answer, fill, rank, summarise; prints JSON for each text.

    With --json, prints one JSON list instead of lines. A blank line keeps its place, with no result. An encoder-decoder
    generates with the settings of its generation_config.json, without it greedily and at most 128 tokens; options
    override both. The program edgeq-run in a bundle has the same options and prints the same JSON.
    """
    from edgeq.targets.runtime.loader import load

    inputs = texts.read()
    loaded = load(bundle, threads=threads)
    task = "rank" if texts.query is not None else loaded.manifest.model.task
    results = _results(loaded, task, inputs, options.of(loaded, task), query=texts.query)
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
        results = _generated(loaded, texts, **options)
    else:
        results = getattr(loaded, task)(texts, **options)
    return join_results(inputs, results)


def _generated(
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
        raise UsageError(f"bundle {loaded.path} generates a text from one text; leave --pair and --pairs out")
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


def _beams(loaded: Bundle, count: int | None, penalty: float | None, early_stopping: bool | None) -> Beams:
    """The bundle's beams with what the caller changes of them."""
    given = {"count": count, "length_penalty": penalty, "early_stopping": early_stopping}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    beams = dataclasses.replace(loaded.generation.settings.beams, **changes)
    if beams.count == 1 and (penalty is not None or early_stopping is not None):
        raise UsageError("--length-penalty and --early-stopping belong to beam search; give --num-beams above 1")
    return beams
