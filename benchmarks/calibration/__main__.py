"""Calibrated recipes beside rounding to the nearest level at the same stored bytes, on MiniLM, a classifier and GPT-2.

    python -m benchmarks.calibration --minilm FOLDER --data DATA --results FILE [--sst2 FOLDER] [--e5 FOLDER]
        [--only NAME ...]

MiniLM is ``all-MiniLM-L6-v2``, calibrated with the sentences of STS-B's training split without their scores and
measured on the dev split: Spearman correlation, and the share of its texts that keep their nearest neighbour of the
float model. ``gpt2-wikitext2`` of the model zoo is calibrated with WikiText-2's training split and measured on the
first tokens of the validation split. The classifier is the teacher of SST-2 that the queue of ``benchmarks.claims``
trains, calibrated with 6,000 sentences of the training split without their labels and measured by its accuracy on the
dev split. ``multilingual-e5-small`` is calibrated as MiniLM is, its texts behind ``query: ``, and measured on every
third pair of the dev split. Rows with "default texts" were calibrated with what comes with edgeq. The last rows of
MiniLM change one thing of ``calibrated-w4a8``, or round to 8 bits: what stands between it and its goal. DATA holds the
folders ``stsb``, ``sst2`` and ``wikitext2``. A row that is in FILE already, of the same recipe and threads, is not
repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from benchmarks.calibration.bench import GPT2, Bench
from edgeq.files import write_text


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--sst2", type=Path, help="classifier of SST-2; without it its rows are left out")
    parser.add_argument("--e5", type=Path, help="folder of multilingual-e5-small; without it its rows are left out")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--results", type=Path, required=True, help="file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="rows by name, such as minilm/calibrated-w4a8")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.results.read_text())["rows"] if options.results.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        sources = {"minilm": options.minilm, "gpt2": GPT2, "sst2": options.sst2, "e5": options.e5}
        present = {name: source for name, source in sources.items() if source is not None}
        bench = Bench(Path(folder), present, options.data, options.threads)
        for name, recipe, calibration in bench.cases():
            if options.only is not None and name not in options.only:
                continue
            done = [(row["name"], row["recipe_sha256"], row["threads"]) for row in rows]
            if (name, recipe.sha256, options.threads) in done:
                continue
            row = bench.row(name, recipe, calibration)
            rows = [other for other in rows if other["name"] != name] + [row]
            write_text(options.results, json.dumps({"rows": rows}, indent=1) + "\n")
            print(json.dumps({key: row[key] for key in ("name", "quality", "bytes", "cpu_seconds")}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
