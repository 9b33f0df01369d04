"""What the runtime takes: bytes, starts, memory, calls, Python's share, and its speed beside programs that compute.

    python -m benchmarks.runtime --models FOLDER --minilm CHECKPOINT --peers .venv-peers/bin/python

Bundles are made in FOLDER if they are not there, which takes some minutes; `--part` measures only some parts and keeps
what the results have of the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgeq
from benchmarks.machine import facts
from benchmarks.runtime import busy, calls, footprint, format_1, starts
from benchmarks.speed import prepare
from edgeq.targets.builtin.target import load_target
from edgeq.targets.toolchain.linkers import find_linker, run_compiler

BOARD = "cortex-a76"
GPT2_RECIPE = "ptq-w2e2a8"
_REPOSITORY = Path(__file__).parents[2]
_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    """Runs the benchmark and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder that keeps what is made")
    parser.add_argument("--minilm", type=Path, required=True, help="checkpoint of all-MiniLM-L6-v2")
    parser.add_argument("--peers", type=Path, help="interpreter of the peers' environment; None: without them")
    parser.add_argument("--format-1", type=Path, help="checkout of format_1.COMMIT; None: without it")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="measure this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each")
    options = parser.parse_args()
    options.models = options.models.resolve()
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.is_file() else {}
    results["format 1, quoted"] = format_1.QUOTED
    for name in options.part or PARTS:
        measured = PARTS[name](options)
        results[name] = {"machine": facts(), "seed": calls.SEED, "measured": measured}
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: measured}, indent=1), flush=True)
    return 0


def _minilm(options: argparse.Namespace, target: str = "host") -> Path:
    folder = options.models / "minilm"
    if not (folder / "onnx").is_dir():
        edgeq.compress_model(options.minilm, folder / "checkpoint", recipe=busy.RECIPE)
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
    return _bundle(folder / "onnx", folder, target)


def _gpt2(options: argparse.Namespace, target: str = "host") -> Path:
    onnx = prepare.low_bit_onnx("gpt2-small", GPT2_RECIPE, root=options.models)
    return _bundle(onnx, onnx.parent, target)


def _bundle(onnx: Path, folder: Path, target: str) -> Path:
    bundle = folder / target
    if not bundle.is_dir():
        host = folder / "host"
        edgeq.compile_bundle(
            onnx, bundle, target=load_target(target), host_bundle=host if target != "host" and host.is_dir() else None
        )
    return bundle


def _sizes(options: argparse.Namespace) -> dict[str, Any]:
    bert, gpt2 = _minilm(options, BOARD), _gpt2(options, BOARD)
    return {"target": BOARD, "bert": footprint.sizes(bert), "gpt2": footprint.sizes(gpt2)}


def _starts(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source, empty = Path(folder) / "empty.c", Path(folder) / "empty"
        source.write_text("int main(void) { return 0; }\n", encoding="ascii")
        arguments = ["-static", str(source), "-o", str(empty)]
        run_compiler(find_linker(load_target("host")), arguments, purpose="build an empty program")
        return starts.starts(_minilm(options), empty, rounds=options.rounds)


def _calls(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for threads in (1, 2):
        found[f"{threads} threads"] = {
            "gpt2_step_ms": calls.step_ms(_gpt2(options), threads=threads),
            **{f"minilm_{n}_ms": calls.encoder_ms(_minilm(options), tokens=n, threads=threads) for n in (128, 16)},
        }
    return found


def _memory(options: argparse.Namespace) -> dict[str, Any]:
    return {
        f"{threads} threads": footprint.memory(_minilm(options), tokens=128, threads=threads) for threads in (1, 2)
    }


def _busy(options: argparse.Namespace) -> Any:
    if options.peers is None:
        return "left out: no environment of the peers was given"
    with tempfile.TemporaryDirectory() as scratch:
        return busy.beside_others(
            models=options.models, python=options.peers, threads=2, rounds=options.rounds, scratch=Path(scratch)
        )


def _format_1(options: argparse.Namespace) -> Any:
    """Both formats are compiled from the same checkpoints, each by its own code."""
    if options.format_1 is None:
        return "left out: no checkout of format 1 was given"
    old, targets = options.models / "format-1", ("host", format_1.PROGRAM_TARGET)
    decoder = prepare.float_checkpoint("gpt2-small", options.models)
    checkout = options.format_1.resolve()
    format_1.make_bundles(checkout, options.minilm.resolve(), busy.RECIPE, old / "minilm", targets=targets)
    format_1.make_bundles(checkout, decoder, GPT2_RECIPE, old / "gpt2-small", targets=["host"])
    encoders = {"1": old / "minilm" / "host", "2": _minilm(options)}
    programs = {"1": old / "minilm" / format_1.PROGRAM_TARGET, "2": _minilm(options, format_1.PROGRAM_TARGET)}
    pairs = {"1": (encoders["1"], old / "gpt2-small" / "host"), "2": (encoders["2"], _gpt2(options))}
    found: dict[str, Any] = {"commit": format_1.COMMIT}
    for threads in (1, 2):
        found[f"{threads} threads"] = format_1.calls_in_turns(checkout, pairs, threads=threads, rounds=options.rounds)
    found["starts"] = format_1.starts_in_turns(checkout, encoders, programs, rounds=options.rounds)
    found["native_bytes"] = {name: format_1.native_bytes(bundle) for name, bundle in programs.items()}
    return found


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "sizes": _sizes,
    "environment": lambda _: footprint.environment(_REPOSITORY),
    "starts": _starts,
    "python_starts": lambda options: starts.python_starts(_minilm(options), _REPOSITORY, rounds=options.rounds),
    "memory": _memory,
    "calls": _calls,
    "python_costs": lambda options: calls.python_costs(_minilm(options), _gpt2(options)),
    "busy": _busy,
    "format_1": _format_1,
}
"""Functions that measure, by the name of the part."""


if __name__ == "__main__":
    raise SystemExit(main())
