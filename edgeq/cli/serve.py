"""``serve``: bundles behind HTTP."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgeq.cli.console import print_json_line
from edgeq.cli.run_options import Threads
from edgeq.cli.verb import Json, verb
from edgeq.errors import UnsupportedError


@verb(
    "serve",
    example="serve ./run/bundles/host\n"
    "serve minilm=./minilm/bundles/host gpt2=./gpt2/bundles/host --port 9000 --threads 2",
)
def serve(
    bundles: Annotated[
        list[str], typer.Argument(help="Bundles for this machine, each PATH or NAME=PATH.", metavar="BUNDLE...")
    ],
    *,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8000,
    threads: Threads = None,
    max_body: Annotated[str, typer.Option(help="Most bytes of a request, such as 4MB.")] = "4MB",
    max_texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 1024,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a request's texts together.")] = 131072,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most texts that wait for a bundle.")] = 4096,
    together: Annotated[
        int, typer.Option(min=1, max=1024, help="Most generated texts that run together; each has a cache of its own.")
    ] = 8,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that requests have to end when the server stops.")] = 30,
    as_json: Json = False,
) -> None:
    """Answer HTTP requests: embeddings, completions, reranking, labels.

    /v1/embeddings, /v1/completions (streaming too) and /v1/models are as OpenAI has them; /rerank as Cohere has it;
    /predict, /health and /metrics (Prometheus) besides. Requests that arrive together run together. Ctrl-C or SIGTERM
    lets running requests end first.

    There is no password and no encryption: put a proxy before it where others reach it.

    With --json, prints a line of JSON with address and models as soon as requests can come.
    """
    try:
        from edgeq.serve.app import Server
        from edgeq.serve.server import bound_socket
        from edgeq.serve.server import serve as serve_app
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"edgeq serve needs {error.name}: pip install 'edgeq[serve]'") from None
    from edgeq.serve.limits import Limits
    from edgeq.serve.metrics import Metrics
    from edgeq.serve.models import bundle_names, load_models
    from edgeq.sizes import parse_bytes

    limits = Limits(
        body=parse_bytes(max_body, option="--max-body"),
        texts=max_texts,
        tokens=max_tokens,
        waiting=max_waiting,
        together=together,
    )
    named = bundle_names(bundles)
    bound = bound_socket(host, port)
    metrics = Metrics()
    with bound:
        models = load_models(named, limits=limits, metrics=metrics, threads=threads)
        address = bound.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]

        def say() -> None:
            if as_json:
                tasks = {name: model.task for name, model in models.items()}
                print_json_line({"address": f"http://{shown}:{address[1]}", "models": tasks})
                sys.stdout.flush()
                return
            names = ", ".join(f"{name} ({model.task})" for name, model in models.items())
            print(f"edgeq: serving {names} at http://{shown}:{address[1]}", file=sys.stderr, flush=True)  # noqa: T201

        serve_app(Server(models, limits=limits, metrics=metrics).app(), bound, grace=grace, on_start=say)
