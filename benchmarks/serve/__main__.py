"""Clients of `edgeq serve`: how many texts a second, and how long one waits.

    python -m benchmarks.serve BUNDLE --texts stsb/dev.tsv [--clients 64] [--seconds 20] [--peer NAME=URL]

Every client sends one text after the other to `/v1/embeddings`, over loopback. A peer is a server that runs already and
answers the same requests; both take turns, and the ratio of their rounds is stated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import facts
from edgeq.evaluate.data import read_rows

SEED = 0


def main() -> int:
    """Runs the benchmark and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="bundle for this machine that embeds texts")
    parser.add_argument("--texts", type=Path, required=True, help="table with columns sentence1 and sentence2")
    parser.add_argument("--clients", type=int, default=64, help="clients at once")
    parser.add_argument("--seconds", type=float, default=20, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server")
    parser.add_argument("--threads", type=int, default=1, help="threads of the kernels")
    parser.add_argument("--peer", metavar="NAME=URL", help="another server that answers /v1/embeddings")
    parser.add_argument("--peer-model", default="default", help="what the peer calls its model")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/serve/results.json"))
    options = parser.parse_args()
    rows = read_rows(options.texts)
    texts = sorted({cells[column] for _, cells in rows for column in ("sentence1", "sentence2")})
    random.Random(SEED).shuffle(texts)  # noqa: S311
    process, address = _start(options.bundle, options.threads)
    servers = {"edgeq": (address, "bundle")}
    if options.peer:
        name, _, url = options.peer.partition("=")
        servers[name] = (url, options.peer_model)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    memory = [_resident(process.pid)]
    try:
        for _ in range(options.rounds):
            for name, (url, model) in servers.items():
                rounds[name].append(asyncio.run(_round(url, model, texts, options.clients, options.seconds)))
            memory.append(_resident(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    results = {
        "machine": facts(),
        "clients": options.clients,
        "seconds": options.seconds,
        "threads": options.threads,
        "seed": SEED,
        "texts": {"file": options.texts.name, "count": len(texts)},
        "resident_mib": memory,
        "exit_code": code,
        "rounds": rounds,
        "median": {name: _median(found) for name, found in rounds.items()},
    }
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, median in results["median"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in median.items()))
    print("resident MiB after each round:", ", ".join(f"{value:.1f}" for value in memory))
    return 0


def _start(bundle: Path, threads: int) -> tuple[subprocess.Popen[str], str]:
    program = [sys.executable, "-c", "import sys; from edgeq.cli.main import main; sys.exit(main())"]
    command = [*program, "serve", f"bundle={bundle}", "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline() if process.stderr else ""
    found = re.search(r"http://\S+", line)
    if found is None:
        process.kill()
        raise SystemExit(f"the server did not start: {line}")
    return process, found[0]


async def _round(url: str, model: str, texts: list[str], clients: int, seconds: float) -> dict[str, Any]:
    waited: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds
    async def ask(number: int) -> None:
        nonlocal errors
        at = number
        # A client each, as in the world: one pool of many connections takes longer than the server.
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while time.perf_counter() < end:
                start = time.perf_counter()
                try:
                    body = {"model": model, "input": texts[at % len(texts)]}
                    answer = await client.post("/v1/embeddings", json=body)
                    errors += answer.status_code != 200
                except httpx.HTTPError as error:
                    errors += 1
                    print(f"{type(error).__name__}: {error}", file=sys.stderr)
                waited.append(time.perf_counter() - start)
                at += clients

    start = time.perf_counter()
    await asyncio.gather(*map(ask, range(clients)))
    spent = time.perf_counter() - start
    parts = statistics.quantiles(waited, n=100)
    return {
        "texts_per_second": len(waited) / spent,
        "p50_ms": 1e3 * parts[49],
        "p99_ms": 1e3 * parts[98],
        "errors": errors,
    }


def _median(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}


def _resident(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]  # Linux always has it


if __name__ == "__main__":
    raise SystemExit(main())
