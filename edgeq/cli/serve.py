"""``serve``: bundles behind HTTP."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import print_json_line
from edgeq.cli.run_options import Threads
from edgeq.cli.verb import Json, verb
from edgeq.errors import UnsupportedError

if TYPE_CHECKING:
    from edgeq.serve.limits import Limits


def _limit(text: str, *, most: int | None = None) -> Any:
    return typer.Option(min=1, max=most, help=text, rich_help_panel="Limits")


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """What a request may ask for."""

    max_body: Annotated[
        str, typer.Option(help="Largest size of a request, such as 4MB.", rich_help_panel="Limits")
    ] = "4MB"
    max_texts: Annotated[int, _limit("Largest number of texts in a request.")] = 1024
    max_tokens: Annotated[int, _limit("Largest number of tokens in all texts of a request.")] = 131072
    max_waiting: Annotated[int, _limit("Largest number of texts waiting for a bundle.")] = 4096
    together: Annotated[
        int, _limit("Largest number of texts generated together; each has its own cache.", most=1024)
    ] = 8

    def limits(self) -> Limits:
        """Reads them.

        Raises:
            UsageError: If ``--max-body`` is no number of bytes.
        """
        from edgeq.serve.limits import Limits
        from edgeq.sizes import parse_bytes

        return Limits(
            body=parse_bytes(self.max_body, option="--max-body"),
            texts=self.max_texts,
            tokens=self.max_tokens,
            waiting=self.max_waiting,
            together=self.together,
        )


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
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    threads: Threads = None,
    asked: LimitOptions,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for requests to finish when the server stops.")] = 30,
    as_json: Json = False,
) -> None:
    """Answer HTTP requests: embeddings, completions, reranking, labels.

    /v1/embeddings, /v1/completions (streaming too) and /v1/models follow OpenAI's API, /rerank follows Cohere's;
    /predict, /health and /metrics (Prometheus) are edgeq's own. Requests that arrive together are computed together.
    Ctrl-C or SIGTERM stops the server after the running requests have finished.

    There is no password and no encryption: put a proxy in front of it if others can reach it.

    With --json, prints a line of JSON with address and models once the server accepts requests.
    """
    try:
        from edgeq.serve.app import Server
        from edgeq.serve.server import bound_socket
        from edgeq.serve.server import serve as serve_app
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"edgeq serve needs {error.name}: pip install 'edgeq[serve]'") from None
    from edgeq.serve.metrics import Metrics
    from edgeq.serve.models import bundle_names, load_models

    limits = asked.limits()
    named = bundle_names(bundles)
    bound = bound_socket(host, port)
    metrics = Metrics()
    with bound:
        models = load_models(named, limits=limits, metrics=metrics, threads=threads)
        tasks = {name: model.task for name, model in models.items()}
        say = functools.partial(_announce, bound.getsockname(), tasks, as_json=as_json)
        serve_app(Server(models, limits=limits, metrics=metrics).app(), bound, grace=grace, on_start=say)


def _announce(address: tuple[Any, ...], tasks: dict[str, str], *, as_json: bool) -> None:
    """Says where the models are to be had, as soon as requests can come."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    place = f"http://{host}:{address[1]}"
    if as_json:
        print_json_line({"address": place, "models": tasks})
        sys.stdout.flush()
        return
    names = ", ".join(f"{name} ({task})" for name, task in tasks.items())
    print(f"edgeq: serving {names} at {place}", file=sys.stderr, flush=True)  # noqa: T201
