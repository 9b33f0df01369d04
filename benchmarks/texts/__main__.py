"""Texts a second, tokenizing included, beside other engines.

    python -m benchmarks.texts --minilm FOLDER --data DATA --prepare           # every file; nothing is timed
    python -m benchmarks.texts --minilm FOLDER --data DATA --workload stsb --threads 1

Workloads are ``stsb``, the sentences of STS-B's dev and test splits through MiniLM, and ``wikitext``, sentences and
paragraphs of WikiText-2 of 5 to 512 tokens in random order through BERT-base. Each engine is a process of its own, held
to as many cores as it has threads. In a round each embeds the same texts, the next ones of the workload; what counts is
the median over rounds of the ratio of two engines in the same round. Every engine's embeddings of some texts are
compared with those of PyTorch's float32, so that nobody is fast at something else. DATA holds the folders ``stsb`` and
``wikitext2``, FOLDER is all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.speed import prepare as speed
from benchmarks.speed.setups import OWN, Setup, own_name
from benchmarks.speed.turns import ENGINES as SPEED_ENGINES
from benchmarks.speed.turns import Engine
from benchmarks.texts.prepare import RECIPES, bundle, checkpoints
from benchmarks.texts.workloads import SEED, WORKLOADS, Workload, texts_of
from edgeq.files import write_text
from edgeq.sizes import counted
from edgeq.targets.devices.timing import paired_speedup

REFERENCE = "sentence-transformers, PyTorch float32"
_ENGINES = Path(__file__).parent / "engines"
_REPOSITORY = Path(__file__).parents[2]
_PEERS = (
    (REFERENCE, "sentence_transformers_texts.py", "torch", 32),
    ("sentence-transformers, ONNX int8", "sentence_transformers_texts.py", "onnx-int8", 8),
    ("sentence-transformers, OpenVINO int8", "sentence_transformers_texts.py", "openvino-int8", 8),
    ("ONNX Runtime float32", "onnxruntime_texts.py", "float32", 32),
    ("ONNX Runtime int8 dynamic", "onnxruntime_texts.py", "int8", 8),
    ("OpenVINO int8 post-training", "openvino_texts.py", "int8", 8),
    ("CTranslate2 int8", "ctranslate2_texts.py", "int8", 8),
)
_LEAST_COSINE = {32: 0.9999, 8: 0.9}
"""Mean cosine with the reference's embeddings below which an engine computes something else, by bits."""


@dataclasses.dataclass
class _Row:
    """What one engine did: why it did not take part, or its setting, cosine, seconds of each round."""

    missing: str = ""
    setting: str = ""
    cosine: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def main() -> int:
    """Prepares or measures, prints a table and writes the results."""
    options = _arguments()
    workloads = [workload for workload in WORKLOADS if options.workload in ("", workload.name)]
    for workload in workloads:
        _prepare(workload, options)
    if options.prepare:
        return 0
    for workload in workloads:
        for threads in options.threads:
            entry = _measured(workload, threads, options)
            _print(entry)
            if options.results is not None:
                _keep(options.results, entry)
    return 0


def _setups(workload: Workload, options: argparse.Namespace) -> list[Setup]:
    """Returns every engine, the reference first."""
    environment = {"PYTHONPATH": f"{_REPOSITORY}:{SPEED_ENGINES}", "TOKENIZERS_PARALLELISM": "true"}
    model, python = options.models / workload.model, options.peers_python
    found = [
        Setup(name, str(_ENGINES / script), variant, python, model, bits, environment)
        for name, script, variant, bits in _PEERS
    ]
    for recipe in RECIPES:
        own = bundle(workload.model, recipe, options.models)
        script = str(_ENGINES / "edgeq_texts.py")
        found.append(Setup(own_name(recipe), script, "", Path(sys.executable), own, 8, environment))
    return found


def _prepare(workload: Workload, options: argparse.Namespace) -> None:
    checkpoints(workload.model, minilm=options.minilm, root=options.models, longest=workload.longest)
    speed.float_onnx(workload.model, options.models, python=options.peers_python)
    for setup in _setups(workload, options):
        engine = Engine(setup, 1)
        answer = engine.make(setup.variant)
        engine.stop()
        if "missing" in answer:
            print(f"  {setup.name}: {answer['missing']}", flush=True)


def _measured(workload: Workload, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Takes turns and returns an entry of the results."""
    texts = texts_of(workload, options.data, options.models / workload.model / "float" / "tokenizer.json")
    setups = _setups(workload, options)
    rows = {setup.name: _Row() for setup in setups}
    running: dict[str, Engine] = {}
    with tempfile.TemporaryDirectory(prefix="edgeq-texts-") as scratch:
        folder = Path(scratch)
        sample = _write(folder / "sample.json", texts[-options.sample :])
        try:
            for setup in setups:
                running[setup.name] = engine = Engine(setup, threads)
                answer = engine.ask({
                    "folder": str(setup.folder.resolve()), "variant": setup.variant, "threads": threads,
                    "longest": workload.longest, "sample": sample, "output": str(folder / f"{setup.name}.npy"),
                })  # fmt: skip
                if "missing" in answer:
                    rows[setup.name].missing = answer["missing"]
                    running.pop(setup.name).stop()
                    continue
                rows[setup.name].setting, rows[setup.name].versions = answer["setting"], answer["versions"]
            _take_turns(running, rows, texts, options, folder)
        finally:
            for engine in running.values():
                engine.stop()
        _compare(rows, {setup.name: setup.bits for setup in setups}, folder)
    return {
        "workload": workload.name, "model": workload.model, "goal": workload.goal, "threads": threads, "seed": SEED,
        "texts_a_round": options.count, "sample": options.sample, "machine": facts(),
        "compiler": speed.compiler_digest(),
        "engines": [_result(name, row, rows, options.count) for name, row in rows.items()],
    }  # fmt: skip


def _take_turns(
    running: dict[str, Engine], rows: dict[str, _Row], texts: Sequence[str], options: argparse.Namespace, folder: Path
) -> None:
    names = list(running)
    for number in range(options.rounds):
        start = number * options.count % max(1, len(texts) - options.count)
        file = _write(folder / "texts.json", texts[start : start + options.count])
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            answer = running[name].ask({"texts": file})
            if "missing" in answer:
                raise RuntimeError(f"{name}: {answer['missing']} in round {number + 1}")
            rows[name].seconds.append(answer["seconds"])


def _compare(rows: dict[str, _Row], bits: dict[str, int], folder: Path) -> None:
    """Fills in the cosines, and takes out who computes something else."""
    reference = np.load(folder / f"{REFERENCE}.npy").astype(np.float64)
    for name, row in rows.items():
        if row.missing:
            continue
        row.cosine = float((np.load(folder / f"{name}.npy") * reference).sum(axis=1).mean())
        if row.cosine < _LEAST_COSINE[bits[name]]:
            row.missing = f"computes something else: mean cosine with the reference {row.cosine:.4f}"


def _result(name: str, row: _Row, rows: dict[str, _Row], count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, **dataclasses.asdict(row)}
    if row.missing:
        return found
    found["texts_per_second"] = count / float(np.median(row.seconds))
    if name.startswith(OWN):
        found["versus"] = {}
        for peer, other in rows.items():
            if not peer.startswith(OWN) and not other.missing:
                speedup = paired_speedup(other.seconds, row.seconds)
                high = min(speedup.high, sys.float_info.max)
                found["versus"][peer] = {"ratio": speedup.ratio, "low": speedup.low, "high": high}
    return found


def _print(entry: dict[str, Any]) -> None:
    print(f"\n{entry['workload']}, {entry['model']}, {counted(entry['threads'], 'thread')}")
    for row in sorted(entry["engines"], key=lambda row: -row.get("texts_per_second", 0.0)):
        if row["missing"]:
            print(f"{row['name']:40} {row['missing']}")
            continue
        print(f"{row['name']:40} {row['texts_per_second']:8.1f} texts/s  cosine {row['cosine']:.4f}  {row['setting']}")
        if "versus" in row:
            peer, best = min(row["versus"].items(), key=lambda item: item[1]["ratio"])
            print(f"    {best['ratio']:.2f} ({best['low']:.2f} to {best['high']:.2f}) beside {peer}; "
                  f"goal {entry['goal']}")  # fmt: skip


def _keep(file: Path, entry: dict[str, Any]) -> None:
    entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    key = ("workload", "threads")
    others = [other for other in entries if any(other[name] != entry[name] for name in key)]
    write_text(file, json.dumps([*others, entry], indent=1) + "\n")


def _write(file: Path, texts: Sequence[str]) -> str:
    write_text(file, json.dumps(list(texts)))
    return str(file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--prepare", action="store_true", help="make models, peers' files and bundles; time nothing")
    parser.add_argument("--workload", default="", choices=("", *(workload.name for workload in WORKLOADS)))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--count", type=int, default=200, help="texts of a round")
    parser.add_argument(
        "--sample", type=int, default=64,
        help="texts on which an engine chooses its setting, and on which embeddings are compared",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9, help="turns of each engine; fewer than 6 support no claim")
    parser.add_argument("--models", type=Path, default=Path("bench-output/texts"), help="folder where models are kept")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="has the peers")
    parser.add_argument("--results", type=Path, help="file of results")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
