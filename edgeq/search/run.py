"""The search: what is possible, the study of candidates, and the check on data that it did not see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import edgeq
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.deploy.state import digest, fingerprint_source
from edgeq.errors import UsageError
from edgeq.evaluate.data import TextFile
from edgeq.files import write_text
from edgeq.hub import resolve_source
from edgeq.ledger import megabytes
from edgeq.progress import Progress, silent
from edgeq.reading import read_text, sha256
from edgeq.recipes import calibration_texts, default_texts, load_recipe
from edgeq.report.page import GENERATOR
from edgeq.search.candidates import CANDIDATES, RECIPE_FILE, Workshop
from edgeq.search.latency import Stopwatch
from edgeq.search.page import write_page
from edgeq.search.quality import Half, count_of, halves, loss_of, measure, metric_name
from edgeq.search.recipe_text import base_text, recipe_text
from edgeq.search.report import (
    Choice,
    Latency,
    Measured,
    MethodSet,
    Predicted,
    Promise,
    SearchRecord,
    SearchReport,
    Structure,
    StudyState,
    Tried,
)
from edgeq.search.request import SearchRequest, SearchResult
from edgeq.search.solver import choose_widths, front, total_bytes, total_error
from edgeq.search.space import METHODS, ROUNDINGS, Space, space_of
from edgeq.search.storage import Storage
from edgeq.search.structures import Shaped, Structures
from edgeq.search.study import Choices, Outcome, RefusedError, Study
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices.remote.address import parse_address

STATE_FILE = "search.json"
PAGE_FILE = "search.html"


def search(
    request: SearchRequest, out: str | Path, *, stopwatch: Stopwatch | None = None, progress: Progress = silent
) -> SearchResult:
    """Finds the widths of all layers, their shapes and the calibration that lose least within a budget.

    Others who call it with the same request and storage work on the same study. An interrupt ends it with the best so
    far, if there is one.

    Args:
        request: Source, data and limits.
        out: Folder of the search; one that was stopped goes on, one of other data or another source is refused.
        stopwatch: Tells latencies; None makes the one that the request asks for, if it asks for any.
        progress: Told how far the work is.

    Raises:
        UsageError: If a limit is impossible, data are too few, or the folder or the storage is of no use.
        UnsupportedError: If the quality of such a model is not measured.
        EdgeqError: If no candidate can be made, or the storage goes away.
    """
    folder = Path(out)
    if folder.is_file() or not ((folder / STATE_FILE).is_file() or _holds_nothing_of_others(folder)):
        raise UsageError(f"{folder} is not empty and is no search of edgeq; give the name of a new folder")
    _check_unchanged(folder)
    if not request.methods:
        raise UsageError(f"name at least one method of calibration: {', '.join(METHODS)}")
    stopwatch = stopwatch or _stopwatch(request)
    source = resolve_source(request.source)
    checkpoint = load_checkpoint(source)
    if checkpoint.manifest is not None:
        raise UsageError(f"{source} is compressed already ({checkpoint.manifest.recipe}); give the float model")
    parts = halves(request.eval_data, checkpoint.adapter, seed=request.seed)
    # Read once for their complaints: a study would take them for those of a candidate.
    plain, tokenizer = load_recipe("ptq-w8a8"), checkpoint.tokenizer
    calibration_texts(plain, checkpoint.adapter, tokenizer=tokenizer, data=request.calibration_data)
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(request, source)
    _claim(folder, identity)
    return _Search(request, folder, source, checkpoint, parts, stopwatch, identity, progress).whole()


def _check_unchanged(folder: Path) -> None:
    """Refuses to write over a recipe or a page that the user has changed or put there."""
    recipe, page = folder / RECIPE_FILE, folder / PAGE_FILE
    found = [(path, read_text(path)) for path in (recipe, page) if path.exists()]
    written = {read_text(path) for path in (folder / CANDIDATES).glob(f"*/{RECIPE_FILE}")}
    for path, text in found:
        if text not in written and not (path == page and GENERATOR.decode() in text):
            raise UsageError(f"{path} is not as 'edgeq search' wrote it; move it away, or search in a new folder")


class _Search:
    """One search in its folder."""

    def __init__(
        self,
        request: SearchRequest,
        folder: Path,
        source: Path,
        checkpoint: Checkpoint,
        parts: tuple[Half, Half],
        stopwatch: Stopwatch | None,
        identity: str,
        progress: Progress,
    ) -> None:
        self._request, self._folder, self._source = request, folder, source
        self._checkpoint, self._progress, self._stopwatch = checkpoint, progress, stopwatch
        self._own, self._held = parts
        self._identity = identity
        shapes = request.max_ms is not None if request.shapes is None else request.shapes
        self._space: Space = space_of(
            checkpoint.adapter, methods=request.methods, shapes=shapes, vocabulary=request.vocabulary
        )
        text = self._own.content if isinstance(self._own.content, TextFile) else None
        self._structures = Structures(
            source,
            folder,
            self._space,
            calibration_data=request.calibration_data,
            seed=request.seed,
            text=text,
        )
        self._workshop = Workshop(source, folder, self._own, calibration_data=request.calibration_data)

    def whole(self) -> SearchResult:
        """Runs what is not done yet."""
        self._check_bytes()
        self._check_latency()
        lower = self._checkpoint.adapter.task == "generate"
        directions = ["minimize" if lower else "maximize", "minimize"] + ["minimize"] * (self._stopwatch is not None)
        study = Study(
            Storage(self._request.storage, self._folder),
            f"edgeq-search-{digest({'search': self._identity, 'limits': self._limits()})[:16]}",
            self._space,
            directions=directions,
            seed=self._request.seed,
        )
        interrupted = False
        try:
            study.run(
                self._attempt, trials=self._request.trials, hours=self._request.hours, progress=self._progress
            )
        except KeyboardInterrupt:
            if not study.measured:
                raise
            interrupted = True
        return self._result(study, interrupted=interrupted)

    def _limits(self) -> list[Any]:
        """What makes one study of a folder differ from another."""
        space, stopwatch = self._space, None if self._stopwatch is None else self._stopwatch.identity
        choices = [list(space.methods), list(space.blocks), list(space.factors), space.vocabulary is not None]
        return [self._request.max_bytes, self._request.max_ms, stopwatch, *choices]

    def _check_bytes(self) -> None:
        """Refuses a budget that no structure can keep, and says what the nearest possible one is."""
        whole = self._structures.size(Structure())
        if whole.least <= self._request.max_bytes:
            return
        sizes = [self._structures.size(structure) for structure in self._space.structures]
        best = min(sizes, key=lambda one: one.least)
        if best.least > self._request.max_bytes:
            raise UsageError(
                f"--max-bytes {self._request.max_bytes:,} is not possible for {self._source}: with every layer at its "
                f"narrowest, the weights take {best.least:,} bytes ({megabytes(best.least)}), {best.fixed:,} of them "
                "outside of the layers that are searched"
            )

    def _check_latency(self) -> None:
        """Refuses a limit of latency that the smallest structure breaks, before anything is calibrated."""
        limit = self._request.max_ms
        if limit is None or self._latency(Structure()).milliseconds <= limit:
            return
        smallest = Structure(min(self._space.blocks, key=lambda count: count or self._space.depth + 1),
                             self._space.factors[-1], pruned=self._space.vocabulary is not None)  # fmt: skip
        best = min((self._latency(one) for one in (Structure(), smallest)), key=lambda one: one.milliseconds)
        if best.milliseconds > limit:
            raise UsageError(
                f"--max-ms {limit:g} is not possible for {self._source}: the smallest shapes that are tried take "
                f"{best.milliseconds:.2f} ms ({best.how}); bits do not change the latency"
            )

    def _latency(self, structure: Structure) -> Latency:
        """Tells the latency of a structure at 8 bits: kernels take the same time at every width."""
        if self._stopwatch is None:
            raise ValueError("no latency was asked for")
        text = base_text(f"latency-{structure.label}", self._space.tables(structure))
        method: MethodSet = "distill" if structure.blocks else "nearest"
        folder = self._workshop.checkpoint(text, method, progress=self._progress)
        place = self._folder / "structures" / f"{structure.label}-{digest({'how': self._stopwatch.identity})[:8]}"
        return self._stopwatch.of(folder, place, progress=self._progress)

    def _attempt(self, choices: Choices) -> Outcome:
        """Makes and measures a candidate."""
        structure, budget = choices.structure, int(self._request.max_bytes * choices.share)
        size = self._structures.size(structure)
        if size.least > budget:
            raise RefusedError(f"its weights take {size.least:,} bytes at least, {budget:,} were allowed")
        latency = None if self._stopwatch is None else self._latency(structure)
        if latency is not None and self._request.max_ms is not None and latency.milliseconds > self._request.max_ms:
            raise RefusedError(f"it takes {latency.milliseconds:.2f} ms ({latency.how})")
        shaped = self._structures.measured(structure, ROUNDINGS[choices.method], progress=self._progress)
        widths = choose_widths(shaped.layers, budget=budget - shaped.fixed)
        text = recipe_text(
            f"search-{choices.method}-{budget}-{structure.label}",
            f"found for {budget:,} bytes: {choices.method}, {structure.label}",
            widths=widths,
            methods=METHODS[choices.method],
            tables=self._space.tables(structure),
        )
        made = self._workshop.measured(text, choices.method, progress=self._named(choices.method))
        if made.bytes > self._request.max_bytes:
            raise RefusedError(f"its weights take {made.bytes:,} bytes, {self._request.max_bytes:,} were allowed")
        found = Measured(
            **vars(made),
            share=choices.share,
            structure=structure,
            widths={name: choice.bits for name, choice in widths.items()},
            predicted=_predicted(shaped, widths),
            latency=latency,
        )
        values = (made.value, float(made.bytes), *(() if latency is None else (latency.milliseconds,)))
        return Outcome(values, found)

    def _named(self, method: str) -> Progress:
        return lambda what, done, total: self._progress(f"{method}: {what}", done, total)

    def _result(self, study: Study, *, interrupted: bool) -> SearchResult:
        """Chooses the best candidate, measures it on the other half, and writes what was found."""
        measured = study.measured
        if not measured:
            reasons = "; ".join(sorted({one.reason for one in study.refused})[:3])
            raise UsageError(f"no candidate keeps the limits ({reasons}); allow more, or more --trials")
        sign = -1.0 if next(iter(measured.values())).metric == "perplexity" else 1.0
        number, best = max(measured.items(), key=lambda one: sign * one[1].value)
        shaped = self._structures.measured(best.structure, ROUNDINGS[best.method], progress=self._progress)
        fronts = study.best_numbers
        report = SearchReport(
            source=str(self._request.source),
            budget=self._request.max_bytes,
            max_ms=self._request.max_ms,
            best=number,
            tried=tuple(self._placed(one, found, on_front=one in fronts) for one, found in measured.items()),
            layers=tuple(shaped.layers),
            front=tuple(_predicted(shaped, chosen) for chosen in front(shaped.layers)),
            study=StudyState(
                name=study.name,
                storage=study.storage.shown,
                candidates=len(measured),
                asked=self._request.trials,
                refused=study.refused,
                interrupted=interrupted,
            ),
            promise=self._promise(best),
        )
        write_text(self._folder / RECIPE_FILE, best.recipe)
        SearchRecord(self._identity, report).write(self._folder / STATE_FILE)
        write_page(report, self._folder / PAGE_FILE)
        return SearchResult(self._folder, report)

    def _placed(self, number: int, found: Measured, *, on_front: bool) -> Tried:
        """Makes sure that the recipe of a candidate, which another machine may have made, lies in this folder."""
        place = self._workshop.place(found.recipe)
        if not (place / RECIPE_FILE).is_file():
            write_text(place / RECIPE_FILE, found.recipe)
        inside = place.relative_to(self._folder)
        return Tried(number, on_front, str(inside / RECIPE_FILE), str(inside / "checkpoint"), found)

    def _promise(self, best: Measured) -> Promise:
        """Measures the best candidate, which another machine may have made, on the half that nobody looked at."""
        self._progress("checking on data that the search did not see", 0, 1)
        folder = self._workshop.checkpoint(best.recipe, best.method, progress=self._progress)
        reference, result = measure(self._checkpoint, self._held), measure(load_checkpoint(folder), self._held)
        self._progress("checking on data that the search did not see", 1, 1)
        loss = loss_of(reference, result)
        limit = self._request.max_loss
        allowed = None if limit is None else limit.largest(metric_name(reference), reference.value)
        counted = loss.high if limit is None or limit.end == "interval" else loss.value
        return Promise(
            metric=metric_name(reference),
            examples=count_of(reference),
            reference=reference.value,
            value=result.value,
            loss=loss.value,
            low=loss.low,
            high=loss.high,
            limit=None if limit is None else str(limit),
            kept=allowed is None or bool(counted <= allowed),
        )


def _predicted(shaped: Shaped, widths: Mapping[str, Choice]) -> Predicted:
    return Predicted(shaped.fixed + total_bytes(widths), total_error(widths))


def _stopwatch(request: SearchRequest) -> Stopwatch | None:
    if not request.timed:
        return None
    target = load_target(request.target or "host")
    device = None if request.device is None else parse_address(request.device)
    return Stopwatch(target, device, request.threads, request.sequence)


def _identity(request: SearchRequest, source: Path) -> str:
    """Returns a digest of all that figures depend on, but for limits and choices."""
    texts = request.calibration_data or default_texts()
    corpus = {} if request.vocabulary is None else {"vocabulary": sha256(request.vocabulary)}
    return digest(
        {
            "edgeq": edgeq.__version__,
            "source": fingerprint_source(str(source)),
            "data": sha256(request.eval_data),
            "texts": sha256(texts),
            "seed": request.seed,
        }
        | corpus
    )


def _holds_nothing_of_others(folder: Path) -> bool:
    """Whether a folder is missing, or empty but for what a killed search leaves of its first file."""
    return not folder.is_dir() or all(path.match(f".{STATE_FILE}.*") for path in folder.iterdir())


def _claim(folder: Path, identity: str) -> None:
    """Writes what the folder is a search of, or compares with what is written.

    Raises:
        UsageError: If it is a search of something else.
    """
    file = folder / STATE_FILE
    if not file.is_file():
        SearchRecord(identity).write(file)
    elif SearchRecord.read(file).identity != identity:
        raise UsageError(f"{folder} holds a search of another model or other data; give a new folder")
