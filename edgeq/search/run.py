"""The search: sensitivities, widths, candidates, and the check on data that the search did not see."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import edgeq
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.compress import compress_model, trained_pooling
from edgeq.deploy.state import digest, exclusive, fingerprint_source
from edgeq.errors import FormatError, UsageError
from edgeq.files import write_text
from edgeq.formats.json_file import read_json_object
from edgeq.hub import resolve_source
from edgeq.ledger import ledger, megabytes
from edgeq.progress import Progress, silent
from edgeq.quant.plan import LayerPlan
from edgeq.reading import read_text, sha256
from edgeq.recipes import Recipe, calibration_texts, default_texts, load_recipe, plan_layers
from edgeq.report.gates import LossLimit
from edgeq.report.page import GENERATOR
from edgeq.search.page import write_page
from edgeq.search.quality import Half, count_of, halves, loss_of, measure, metric_name
from edgeq.search.recipe_text import BASE, recipe_text
from edgeq.search.sensitivity import Choice, SearchLayer, fixed_bytes, measure_sensitivity, narrowest_bytes
from edgeq.search.solver import choose_widths, front, total_bytes, total_error

MethodSet = Literal["nearest", "error-feedback", "distill"]
METHODS: dict[MethodSet, tuple[str, ...]] = {
    "nearest": (),
    "error-feedback": ("error-feedback",),
    "distill": ("error-feedback", "distill"),
}
"""Methods of calibration that are tried, the cheapest first."""
STATE_FILE = "search.json"
RECIPE_FILE = "recipe.toml"
PAGE_FILE = "search.html"
CANDIDATES = "candidates"
_FORMAT = "edgeq-search"
_TOKENS = 2048
"""Tokens of calibration texts that sensitivities are measured on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a user asks of a search.

    Attributes:
        source: Folder of a float checkpoint, or a hub name.
        eval_data: Examples, or a text for models that continue texts; half of it is never looked at but for the end.
        max_bytes: Largest size of the weights as stored.
        max_loss: Largest loss on the half that the search does not see; None for no limit.
        calibration_data: Texts without labels; None for those that come with edgeq.
        methods: Methods of calibration to try, by their names in :data:`METHODS`.
        seed: Splits the evaluation data.
    """

    source: str | Path
    eval_data: Path
    max_bytes: int
    max_loss: LossLimit | None = None
    calibration_data: Path | None = None
    methods: tuple[MethodSet, ...] = tuple(METHODS)
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        folder: Its folder, with ``recipe.toml``, ``search.html``, ``search.json`` and the candidates.
        report: Contents of ``search.json``.
    """

    folder: Path
    report: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the promised loss keeps the limit, if there is one."""
        return bool(self.report["promise"]["kept"])


def search(request: SearchRequest, out: str | Path, *, progress: Progress = silent) -> SearchResult:
    """Finds the widths of all layers that lose least within a budget, and the best method of calibration for them.

    Args:
        request: Source, data and limits.
        out: Folder of the search; one that was stopped goes on, one of other data or another source is refused.
        progress: Told how far the work is.

    Raises:
        UsageError: If the budget is impossible, data are too few, or the folder holds something else.
        UnsupportedError: If the quality of such a model is not measured.
        EdgeqError: If a candidate cannot be made.
    """
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / STATE_FILE).is_file()):
        raise UsageError(f"{folder} is not empty and is no search of edgeq; give the name of a new folder")
    _check_unchanged(folder)
    if not request.methods:
        raise UsageError(f"name at least one method of calibration: {', '.join(METHODS)}")
    source = resolve_source(request.source)
    checkpoint = load_checkpoint(source)
    if checkpoint.manifest is not None:
        raise UsageError(f"{source} is compressed already ({checkpoint.manifest.recipe}); give the float model")
    parts = halves(request.eval_data, checkpoint.adapter, seed=request.seed)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        return _Search(request, folder, source, checkpoint, parts, progress).whole()


def _check_unchanged(folder: Path) -> None:
    """Refuses to write over a recipe or a page that the user has changed or put there."""
    recipe, page = folder / RECIPE_FILE, folder / PAGE_FILE
    found = [(path, read_text(path)) for path in (recipe, page) if path.exists()]
    written = {read_text(path) for path in (folder / CANDIDATES).glob("*.toml")}
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
        progress: Progress,
    ) -> None:
        self._request, self._folder, self._source = request, folder, source
        self._checkpoint, self._progress = checkpoint, progress
        self._own, self._held = parts
        self._base: Recipe = _base_recipe(folder)
        self._plans: list[LayerPlan] = plan_layers(self._base, checkpoint.adapter)
        self._state = self._loaded_state()

    def whole(self) -> SearchResult:
        """Runs what is not done yet."""
        fixed = fixed_bytes(self._checkpoint.model, self._plans)
        least = fixed + narrowest_bytes(self._checkpoint.model, self._plans)
        if least > self._request.max_bytes:
            raise UsageError(
                f"--max-bytes {self._request.max_bytes:,} is not possible for {self._source}: with every layer at its "
                f"narrowest, the weights take {least:,} bytes ({megabytes(least)}), {fixed:,} of them outside of the "
                "layers that are searched"
            )
        layers = self._sensitivities()
        chosen = choose_widths(layers, budget=self._request.max_bytes - fixed)
        candidates = [self._candidate(name, chosen) for name in self._request.methods]
        sign = -1.0 if candidates[0]["metric"] == "perplexity" else 1.0
        best = max(candidates, key=lambda one: sign * one["value"])
        report = self._report(layers, fixed, chosen, candidates, best)
        write_text(self._folder / RECIPE_FILE, (self._folder / best["recipe"]).read_text(encoding="utf-8"))
        self._save(report)
        write_page(report, self._folder / PAGE_FILE)
        return SearchResult(self._folder, report)

    def _sensitivities(self) -> list[SearchLayer]:
        stored = self._state.get("layers")
        if stored is None:
            adapter = self._checkpoint.adapter
            texts = calibration_texts(
                self._base, adapter, tokenizer=self._checkpoint.tokenizer, data=self._request.calibration_data
            )
            layers = measure_sensitivity(
                self._checkpoint.model,
                adapter,
                self._plans,
                batches=list(texts.batches(_TOKENS, seed=self._request.seed, most=_TOKENS)),
                pooling=trained_pooling(self._checkpoint),
                progress=self._progress,
            )
            self._state["layers"] = [dataclasses.asdict(layer) for layer in layers]
            self._save(self._state)
            return layers
        try:
            return [
                SearchLayer(one["name"], one["kind"], tuple(Choice(**choice) for choice in one["choices"]))
                for one in stored
            ]
        except (KeyError, TypeError) as error:
            raise FormatError(f"{self._folder / STATE_FILE} is damaged ({error!r}); search in a new folder") from error

    def _candidate(self, method: MethodSet, chosen: dict[str, Choice]) -> dict[str, Any]:
        """Makes and measures the chosen widths with one method, unless that was done already."""
        label = f"{method}-{self._request.max_bytes}"
        recipe = self._folder / CANDIDATES / f"{label}.toml"
        text = recipe_text(
            f"search-{label}",
            f"found for {self._request.max_bytes:,} bytes, method {method}",
            widths=chosen,
            methods=METHODS[method],
        )
        known: dict[str, Any] = self._state.setdefault("candidates", {})
        if label in known and recipe.is_file() and recipe.read_text(encoding="utf-8") == text:
            return dict(known[label])
        write_text(recipe, text)
        place = self._folder / CANDIDATES / label
        data = self._request.calibration_data if METHODS[method] else None
        compress_model(self._source, place, recipe=recipe, calibration_data=data, progress=self._named(method))
        measured = measure(load_checkpoint(place), self._own)
        known[label] = {
            "method": method,
            "recipe": str(recipe.relative_to(self._folder)),
            "checkpoint": str(place.relative_to(self._folder)),
            "bytes": ledger(place).to_json()["totals"]["stored_bytes"],
            "metric": metric_name(measured),
            "value": measured.value,
        }
        self._save(self._state)
        return dict(known[label])

    def _report(
        self,
        layers: Sequence[SearchLayer],
        fixed: int,
        chosen: dict[str, Choice],
        candidates: list[dict[str, Any]],
        best: dict[str, Any],
    ) -> dict[str, Any]:
        self._progress("checking on data that the search did not see", 0, 1)
        reference = measure(self._checkpoint, self._held)
        result = measure(load_checkpoint(self._folder / best["checkpoint"]), self._held)
        self._progress("checking on data that the search did not see", 1, 1)
        loss = loss_of(reference, result)
        limit = self._request.max_loss
        allowed = None if limit is None else limit.largest(metric_name(reference), reference.value)
        counted = loss.high if limit is None or limit.end == "interval" else loss.value
        return self._state | {
            "source": str(self._request.source),
            "budget": self._request.max_bytes,
            "best": best,
            "tried": candidates,
            "widths": {name: choice.bits for name, choice in chosen.items()},
            "predicted": {"bytes": fixed + total_bytes(chosen), "error": total_error(chosen)},
            "front": [
                {"bytes": fixed + total_bytes(one), "error": total_error(one)} for one in front(layers)
            ],
            "promise": {
                "metric": metric_name(reference),
                "examples": count_of(reference),
                "float": reference.value,
                "value": result.value,
                "loss": loss.value,
                "low": loss.low,
                "high": loss.high,
                "limit": None if limit is None else str(limit),
                "kept": allowed is None or bool(counted <= allowed),
            },
        }

    def _named(self, method: str) -> Progress:
        return lambda what, done, total: self._progress(f"{method}: {what}", done, total)

    def _loaded_state(self) -> dict[str, Any]:
        """Returns what an earlier call found out, if it searched the same."""
        texts = self._request.calibration_data or default_texts()
        identity = digest(
            {
                "edgeq": edgeq.__version__,
                "source": fingerprint_source(str(self._source)),
                "data": sha256(self._request.eval_data),
                "texts": sha256(texts),
                "seed": self._request.seed,
            }
        )
        fresh = {"format": _FORMAT, "format_version": 1, "identity": identity}
        file = self._folder / STATE_FILE
        if not file.is_file():
            return fresh
        state = read_json_object(file)
        if state.get("format") != _FORMAT or state.get("identity") != identity:
            raise UsageError(f"{self._folder} holds a search of another model or other data; give a new folder")
        return fresh | {key: state[key] for key in ("layers", "candidates") if key in state}

    def _save(self, state: dict[str, Any]) -> None:
        write_text(self._folder / STATE_FILE, json.dumps(state, indent=1) + "\n")


def _base_recipe(folder: Path) -> Recipe:
    """Returns the recipe that all candidates share, for the plans of layers that are not searched."""
    file = folder / CANDIDATES / "base.toml"
    write_text(file, f'name = "base"\nsummary = "8 bits"\n\n{BASE}')
    return load_recipe(file)
