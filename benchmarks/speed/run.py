"""edgeq beside other engines: the same models, machine, threads and minutes.

    python -m benchmarks.speed.run --prepare                      # makes every file, times nothing
    python -m benchmarks.speed.run --group bert-128 --threads 2      # one group of works, some minutes
    python -m benchmarks.speed.run                                # all that the file of results lacks
    python -m benchmarks.speed.run --smoke                        # tiny models, shows that everything works

Each engine is a process of its own; they take turns, and what counts is the median over rounds of the ratio of two
engines in the same round. Every output is compared with PyTorch's float32 (cosine), so that nobody is fast at
something else; edgeq's compressed models differ from it by their compression. A peer that cannot be installed or
cannot run a model is listed with its reason. What was measured with the present compiler is not measured again
unless --again says so, and the page beside the file of results is written after every work.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.speed import footprint, prepare, results, tables
from benchmarks.speed.benchmarks import AVX2, BENCHMARKS, HOST, MODELS, SMOKE_BENCHMARKS, Benchmark
from benchmarks.speed.disassembly import avx512_instructions
from benchmarks.speed.setups import OWN, Setup, own, peers
from benchmarks.speed.turns import Engine, Outcome, run_in_turns
from edgeq.files import write_text

START, COMPILE = "start", "compile"
_PREPARING_THREADS = 2
GROUPS = (*dict.fromkeys(work.group for work in BENCHMARKS), START, COMPILE)


def main() -> int:
    """Prepares or measures, prints the tables and writes the files."""
    options = _arguments()
    works = SMOKE_BENCHMARKS if options.smoke else BENCHMARKS
    works = tuple(work for work in works if options.smoke or options.group in ("", work.group))
    starts = footprint.SMOKE_STARTS if options.smoke else footprint.STARTS if options.group in ("", START) else ()
    compiled = footprint.COMPILED if not options.smoke and options.group in ("", COMPILE) else ()
    if options.prepare or options.smoke:
        _prepare((*works, *starts), options)
        if options.prepare:
            return 0
    entries = results.read(options.out)
    digest = prepare.compiler_digest()
    for threads in options.threads:
        for work in works:
            if _is_wanted(entries, results.SPEED, work.name, threads, digest, options):
                entries = _keep(entries, _speed(work, threads, options), options, digest)
        for work in starts:
            if _is_wanted(entries, results.START, work.name, threads, digest, options):
                entries = _keep(entries, _start(work, threads, options), options, digest)
    for model, recipe in compiled:
        if _is_wanted(entries, results.COMPILE, model, 1, digest, options):
            row = footprint.compilation(model, recipe, models=options.models).row()
            entry = _entry(results.COMPILE, model, 1, 0) | {"engines": [row]}
            entries = _keep(entries, entry, options, digest)
    return 0


def rows(outcomes: dict[str, Outcome], bits: dict[str, int]) -> list[dict[str, Any]]:
    """Returns what is kept of a benchmark: each engine, and how edgeq's setups compare with all others.

    Args:
        outcomes: What :func:`~benchmarks.speed.turns.run_in_turns` returned.
        bits: Bits of the weights, by name.
    """
    import numpy as np

    found = []
    for name, outcome in outcomes.items():
        row: dict[str, Any] = {"name": name, "bits": bits[name], **dataclasses.asdict(outcome)}
        if not outcome.missing:
            row["median"] = float(np.median(outcome.rounds))
            row["versus"] = _versus(name, outcomes) if name.startswith(OWN) else {}
        found.append(row)
    return found


def _versus(name: str, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    from edgeq.targets.devices.timing import paired_speedup

    found = {}
    for peer, outcome in outcomes.items():
        if peer != name and not outcome.missing:
            speedup = paired_speedup(outcome.rounds, outcomes[name].rounds)
            found[peer] = {
                "ratio": speedup.ratio, "low": speedup.low, "high": min(speedup.high, sys.float_info.max),
            }  # fmt: skip
    return found


def _prepare(works: Sequence[Benchmark], options: argparse.Namespace) -> None:
    """Makes the files of all setups; what a peer cannot make is said, and missed again in the benchmark."""
    for model in dict.fromkeys(work.model for work in works):
        print(f"preparing {model} for the peers", flush=True)
        prepare.float_onnx(model, options.models, python=options.peers_python)
        found = peers(next(work for work in works if work.model == model), models=options.models,
                      python=options.peers_python)  # fmt: skip
        for _, alike in itertools.groupby(found, key=lambda peer: peer.script):
            _make(list(alike))
    # The C runner, whose start is measured, is only in bundles for a named target.
    targets = {work: (HOST, AVX2) if work.group == START else (work.target,) for work in works}
    wanted = ((work.model, recipe, target) for work in works for recipe in work.recipes for target in targets[work])
    for model, recipe, target in dict.fromkeys(wanted):
        print(f"preparing {model}, {recipe}, {target}", flush=True)
        prepare.bundle(model, recipe, target=target, root=options.models)


def _make(alike: Sequence[Setup]) -> None:
    """Has one process make the files of all variants of one engine."""
    engine = Engine(alike[0], _PREPARING_THREADS)
    for peer in alike:
        answer = engine.make(peer.variant)
        if "missing" in answer:
            print(f"  {peer.name}: {answer['missing']}", flush=True)
    engine.stop()


def _speed(work: Benchmark, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    setups = [
        *peers(work, models=options.models, python=options.peers_python),
        *own(work, models=options.models),
    ]
    rounds = 3 if options.smoke else options.rounds
    entry = _entry(results.SPEED, work.name, threads, rounds) | {"work": dataclasses.asdict(work)}
    with tempfile.TemporaryDirectory(prefix="edgeq-speed-") as scratch:
        outcomes = run_in_turns(
            setups, work, threads=threads, rounds=rounds, limit=_vocabulary(work), scratch=Path(scratch)
        )
    if work.target == AVX2:
        libraries = [next((one.folder / "code").glob("*.so")) for one in setups if one.name.startswith(OWN)]
        entry["avx512_instructions"] = [avx512_instructions(library) for library in libraries]
    return _complete(entry, outcomes, setups)


def _complete(entry: dict[str, Any], outcomes: dict[str, Outcome], setups: Sequence[Setup]) -> dict[str, Any]:
    for outcome in outcomes.values():
        entry["versions"] |= outcome.versions
    return entry | {"engines": rows(outcomes, {setup.name: setup.bits for setup in setups})}


def _start(work: Benchmark, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    rounds = 2 if options.smoke else 5
    entry = _entry(results.START, work.name, threads, rounds) | {"work": dataclasses.asdict(work)}
    found, versions = footprint.starts(
        work, models=options.models, python=options.peers_python, threads=threads, rounds=rounds,
        limit=_vocabulary(work),
    )  # fmt: skip
    return entry | {"versions": versions, "engines": [program.row() for program in found]}


def _entry(kind: str, name: str, threads: int, rounds: int) -> dict[str, Any]:
    return {
        "kind": kind, "name": name, "threads": threads, "rounds": rounds, "seed": prepare.SEED, "machine": facts(),
        "versions": {}, "compiler": prepare.compiler_digest(),
    }  # fmt: skip


def _is_wanted(
    entries: list[dict[str, Any]], kind: str, name: str, threads: int, digest: str, options: argparse.Namespace
) -> bool:
    old = results.find(entries, kind, name, threads)
    return options.again or old is None or old["compiler"] != digest


def _keep(
    entries: list[dict[str, Any]], entry: dict[str, Any], options: argparse.Namespace, digest: str
) -> list[dict[str, Any]]:
    """Prints an entry, and writes it if there is a file of results."""
    if entry["compiler"] != digest:
        raise SystemExit("the compiler's sources changed while it was measured: nothing of this work is kept")
    entries = results.put(entries, entry)
    show = {results.SPEED: tables.speed_table, results.START: tables.start_table, results.COMPILE: tables.compile_table}
    print(f"\n### {tables.title(entry)}\n\n{show[entry['kind']](entry)}", flush=True)
    if options.out is not None:
        results.write(options.out, entries)
        write_text(options.out.with_suffix(".md"), tables.document(entries, source=options.out.name))
    return entries


def _vocabulary(work: Benchmark) -> int:
    sizes = MODELS[work.model]
    return int(sizes.get("vocab_size", 30522 if sizes["model_type"] == "bert" else 50257))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make models, peers' files and bundles; time nothing")
    parser.add_argument("--group", default="", choices=("", *GROUPS), help="works that are measured; default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="default: 2, then 1")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each engine; fewer than 6 support no claim")
    parser.add_argument("--again", action="store_true", help="measure again what the file of results has")
    parser.add_argument("--models", type=Path, default=Path("bench-output/speed"), help="folder where models are kept")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="has the peers")
    parser.add_argument("--smoke", action="store_true", help="tiny models, three rounds")
    parser.add_argument("--out", type=Path, help="file of results; the page goes beside it")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
