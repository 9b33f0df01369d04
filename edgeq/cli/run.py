"""``run`` and ``verify``: a bundle at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_json_line, say
from edgeq.cli.verb import Json, verb
from edgeq.errors import EdgeqError, UnsupportedError, UsageError

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the kernels; results do not depend on it.")
]


@verb(
    "run",
    example='run ./run/bundles/host --text "A cat sat on the mat."\nrun ./run/bundles/host --file texts.txt',
)
def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle for this machine.")],
    *,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; repeatable.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="UTF-8 file with one text a line.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embed or classify texts; prints one JSON object a text, one a line.

    With --json, prints one JSON list instead of lines.
    """
    from edgeq.targets.runtime.loader import load
    from edgeq.targets.runtime.text import read_texts, run_texts

    texts = [*(text or []), *(read_texts(file) if file is not None else [])]
    if not texts:
        raise UsageError("there is nothing to run: give --text TEXT or --file FILE")
    results = run_texts(load(bundle, threads=threads), texts)
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
