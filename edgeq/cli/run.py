"""``run`` and ``verify``: a bundle at work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.console import print_json, print_json_line, say
from edgeq.cli.verb import Json, verb
from edgeq.errors import EdgeqError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from edgeq.targets.runtime.seq2seq import Rewritten
    from edgeq.targets.runtime.text import TextResult

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the kernels; results do not depend on it.")
]


@verb(
    "run",
    example='run ./run/bundles/host --text "A cat sat on the mat."\nrun ./run/bundles/host --file texts.txt\n'
    'run ./bart/bundles/host --file articles.txt --num-beams 4 --max-new-tokens 60',
)
def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle for this machine.")],
    *,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; repeatable.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="UTF-8 file with one text a line.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", "-n", help="Encoder-decoders: most tokens to write; 128 if not given."),
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option("--num-beams", help="Encoder-decoders: texts that beam search keeps; 1 is greedy.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Beam search: above 0 favours longer texts; 1 if not given.")
    ] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Beam search: stop when as many texts as beams have ended.")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embed, classify, summarise or infill texts; prints one JSON object a text, one a line.

    With --json, prints one JSON list instead of lines.
    """
    from edgeq.targets.runtime.beams import Beams
    from edgeq.targets.runtime.loader import load
    from edgeq.targets.runtime.seq2seq import DEFAULT_NEW_TOKENS
    from edgeq.targets.runtime.text import read_texts, run_texts

    texts = [*(text or []), *(read_texts(file) if file is not None else [])]
    if not texts:
        raise UsageError("there is nothing to run: give --text TEXT or --file FILE")
    loaded = load(bundle, threads=threads)
    results: Iterable[TextResult | Rewritten]
    if loaded.manifest.model.task == "seq2seq":
        searched = Beams(
            1 if num_beams is None else num_beams, 1.0 if length_penalty is None else length_penalty, early_stopping
        )
        if searched.count == 1 and (length_penalty is not None or early_stopping):
            raise UsageError("--length-penalty and --early-stopping belong to beam search; give --num-beams above 1")
        wanted = DEFAULT_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        results = loaded.rewrite(texts, max_new_tokens=wanted, beams=searched)
    elif any(option is not None for option in (max_new_tokens, num_beams, length_penalty)) or early_stopping:
        raise UsageError(
            f"bundle {bundle} writes no texts of others, so --max-new-tokens, --num-beams, --length-penalty and "
            "--early-stopping do not apply; leave them out"
        )
    else:
        results = run_texts(loaded, texts)
    if as_json:
        print_json([result.to_json() for result in results])
        return
    for result in results:
        print_json_line(result.to_json())


@verb("verify", example="verify ./run/bundles/host\nverify ./run/bundles/cortex-a76")
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to check.")],
    *,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Check every file of a bundle against its sha256, then run its self-test, bit for bit.

    A bundle for another processor runs under the emulator of that processor.
    """
    from edgeq.targets.emulator import self_test, where_it_runs
    from edgeq.targets.runtime.loader import load

    try:
        loaded = load(bundle, threads=threads)
    except UnsupportedError:
        where, result = where_it_runs(bundle), self_test(bundle)
    else:
        where, result = f"in this process, {loaded.threads} threads", loaded.self_test()
    if not result.ok:
        raise EdgeqError(f"{bundle} failed its self-test ({where}): {result.detail}; compile it again")
    if as_json:
        print_json({"bundle": str(bundle), "ok": True, "where": where, "detail": result.detail})
    else:
        say(f"{bundle}: every file is intact; {result.detail} ({where})")
