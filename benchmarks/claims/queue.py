"""Runs what the tables of claims need, one after the other; finished runs are skipped, killed ones go on.

python -m benchmarks.claims.queue --data DATA --runs RUNS            all tables
python -m benchmarks.claims.queue --data DATA --runs RUNS --table xtc one of them
python -m benchmarks.claims.queue --data DATA --runs RUNS --list     what is finished and what is not

The tables are written anew after every run. On a machine with a GPU the same command trains there; ``--budget 20``
makes every run twenty times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.claims import kngpt2, quantgpt
from benchmarks.claims.bag_of_words import measure_bag_of_words
from benchmarks.claims.claim import Claim, run_claim
from benchmarks.claims.first import kngpt2 as first_kngpt2
from benchmarks.claims.first import quantgpt as first_quantgpt
from benchmarks.claims.measure import TEACHERS, Places
from benchmarks.claims.mended import mended_table
from benchmarks.claims.records import BAG_OF_WORDS, read_records, write_record
from benchmarks.claims.stsb import stsb_table
from benchmarks.claims.table import Finished, Table
from benchmarks.claims.teacher import train_teacher
from benchmarks.claims.training_logs import LOGS, read_log, write_log
from benchmarks.claims.tucker import tucker_table
from benchmarks.claims.two_stage import two_stage_table
from benchmarks.claims.xtc import xtc_table
from edgeq.errors import EdgeqError, UsageError
from edgeq.files import write_text
from edgeq.progress import Progress

TABLES: dict[str, Callable[[float], Table]] = {
    "quantgpt": quantgpt.quantgpt_table,
    "kngpt2": kngpt2.kngpt2_table,
    "xtc": xtc_table,
    "two-stage": two_stage_table,
    "tucker": tucker_table,
    "stsb": stsb_table,
    "first-quantgpt": first_quantgpt.quantgpt_table,
    "first-kngpt2": first_kngpt2.kngpt2_table,
    "mended": mended_table,
}
RESULTS = Path(__file__).parent / "results"
RECORDS = "runs"
"""Folder of the records in that of the tables."""
_SECONDS_BETWEEN_LINES = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Runs the queue and returns the exit code."""
    options = _parser().parse_args(arguments)
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.results is None:
        # What the repository holds is of this budget.
        options.results = RESULTS if options.budget == 1.0 else options.runs / "results"
    places = Places(options.data, options.runs, limit=options.limit)
    tables = [TABLES[name](options.budget) for name in options.table or TABLES]
    try:
        if options.list:
            return _list(tables, options.results)
        return _work(tables, places, options)
    except EdgeqError as error:
        print(f"queue: {error}", file=sys.stderr)
        return error.exit_code


def _work(tables: list[Table], places: Places, options: argparse.Namespace) -> int:
    _check_budget(places.runs, options.budget)
    if options.count != 0:
        _measure_bags(tables, places, options.results / RECORDS)
    claims = {claim.name: claim for table in tables for claim in table.claims}
    done = 0
    while options.count is None or done < options.count:
        finished = _finished(tables, options.results)
        write_tables(tables, finished, options)
        # A table is whole before the next one begins.
        ready = [claim for table in tables for claim in table.ready(finished)]
        claim = next((claim for claim in ready if places.has_source(claim.source)), None)
        if claim is None:
            _say_what_waits(ready)
            return 0
        if not places.has_teacher(claim.task):
            folder = TEACHERS[claim.task]
            print(f"{folder}: begins", flush=True)
            result = train_teacher(places, claim.task, scale=options.budget, progress=_lines(folder))
        else:
            claim = _first_of(claim, claims, places)
            folder = claim.name
            print(f"{claim.name}: begins", flush=True)
            result = run_claim(claim, places, progress=_lines(claim.name))
        # The log first: a record says that nothing of its run is left to be done.
        write_log(options.results / LOGS, result["name"], read_log(places.runs / folder))
        write_record(options.results / RECORDS, result)
        done += 1
        figures = {key: result[key] for key in ("accuracy", "valid", "test", "failed") if key in result}
        print(f"{result['name']}: {json.dumps(figures)}", flush=True)
    write_tables(tables, _finished(tables, options.results), options)
    return 0


def _measure_bags(tables: list[Table], places: Places, records: Path) -> None:
    """Measures what the data of each task give away without the order of words, once."""
    for task in sorted({claim.task for table in tables for claim in table.claims} & set(TEACHERS)):
        if not (records / f"{BAG_OF_WORDS}-{task}.json").is_file():
            write_record(records, measure_bag_of_words(task, places))


def _first_of(claim: Claim, claims: dict[str, Claim], places: Places) -> Claim:
    """Returns the run, or the one that it starts from where this machine has not trained it."""
    while claim.start_from and not (places.runs / claim.start_from / "training" / "result.json").is_file():
        claim = claims[claim.start_from]
    return claim


def _say_what_waits(ready: list[Claim]) -> None:
    missing = sorted({claim.source for claim in ready})
    for source in missing:
        count = sum(claim.source == source for claim in ready)
        print(f"{count} runs wait for models/zoo/{source}, which benchmarks/zoo/README.md says how to train")
    if not missing:
        print("all runs are finished")


def _check_budget(runs: Path, budget: float) -> None:
    """Keeps runs of different length apart: a table is of one budget."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "queue.json"
    if not file.is_file():
        write_text(file, json.dumps({"budget": budget}) + "\n")
    elif (before := json.loads(file.read_text(encoding="utf-8"))["budget"]) != budget:
        raise UsageError(f"{runs} holds runs of --budget {before:g}, found {budget:g}; give another folder")


def _finished(tables: list[Table], results: Path) -> dict[str, dict[str, Any]]:
    return read_records(results / RECORDS, [claim for table in tables for claim in table.claims])


def write_tables(tables: list[Table], finished: Finished, options: argparse.Namespace) -> None:
    """Writes each table of which something is finished as ``NAME.md``."""
    command = "python -m benchmarks.claims.queue --data DATA --runs RUNS"
    if options.budget != 1.0:
        command += f" --budget {options.budget:g}"
    for table in tables:
        if any(row.results(finished) for row in table.rows):
            # A closed table is written anew from its records, and nothing is run.
            rest = "" if any(claim.can_run for claim in table.claims) else " --count 0"
            markdown = table.to_markdown(finished, command=f"{command} --table {table.name}{rest}")
            write_text(options.results / f"{table.name}.md", markdown)


def _list(tables: list[Table], results: Path) -> int:
    finished = _finished(tables, results)
    for table in tables:
        for claim in table.claims:
            print(f"{'done   ' if claim.name in finished else 'waiting'} {table.name:10} {claim.name}")
    return 0


def _lines(name: str) -> Progress:
    """Returns a progress that prints a line now and then, for a log file."""
    last = [time.monotonic()]

    def tell(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] >= _SECONDS_BETWEEN_LINES:
            last[0] = time.monotonic()
            print(f"{name}: {what} {done}/{total}", flush=True)

    return tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmarks.claims.queue"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sst2, stsb and wikitext2")
    parser.add_argument("--runs", type=Path, required=True, help="folder of all runs: checkpoints and logs")
    parser.add_argument("--table", action="append", choices=list(TABLES), help="repeatable; default: all of them")
    parser.add_argument("--budget", type=float, default=1.0, help="factor on the epochs of every run")
    parser.add_argument("--count", type=int, help="stop after this many runs")
    parser.add_argument("--limit", type=int, help="measure this many sentences or windows only: for trying out")
    parser.add_argument("--threads", type=int, help="threads of torch; by default OMP_NUM_THREADS, or all cores")
    parser.add_argument("--results", type=Path, help="folder of the tables and records (default: this package's)")
    parser.add_argument("--list", action="store_true", help="say what is finished, and stop")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
