"""The whole search on a tiny BERT and a tiny GPT-2."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import edgeq.cli.main as cli
import edgeq.search.recipe_text as recipe_text_module
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import UnsupportedError, UsageError
from edgeq.evaluate.data import read_evaluation_set
from edgeq.evaluate.evaluation import Evaluation
from edgeq.ledger import ledger
from edgeq.progress import Progress, silent
from edgeq.recipes import load_recipe
from edgeq.search import SearchRequest, search
from edgeq.search.latency import Stopwatch
from edgeq.search.quality import Half, halves, measure
from edgeq.search.recipe_text import recipe_text
from edgeq.search.report import Latency, Structure
from edgeq.search.solver import choose_widths, total_bytes
from edgeq.search.space import space_of
from edgeq.search.structures import Structures
from edgeq.targets.builtin.target import load_target

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "a", "cat", "sat", "good", "movie"]


def _lines(count: int, *, seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randint(0, len(WORDS), (3 + line % 4,), generator=generator) for line in range(count)]
    return [" ".join(WORDS[index] for index in pick.tolist()) for pick in picks]


@pytest.fixture(scope="module")
def pairs(float_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with the float model's own cosines as scores, so that no other model is better."""
    file = tmp_path_factory.mktemp("data") / "pairs.tsv"
    lines = list(zip(_lines(120, seed=1), _lines(120, seed=2), strict=True))

    def write(scores: list[float]) -> None:
        rows = [f"{first}\t{second}\t{score}" for (first, second), score in zip(lines, scores, strict=True)]
        file.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n")

    write([float(index) for index in range(120)])
    measured = measure(load_checkpoint(float_checkpoint), Half(read_evaluation_set(file)))
    assert isinstance(measured, Evaluation)
    write(measured.rows[:, 0].tolist())
    return file


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "texts.txt"
    file.write_text("\n".join(_lines(200, seed=3)) + "\n")
    return file


@pytest.fixture(scope="module")
def request_of(float_checkpoint: Path, pairs: Path, texts: Path) -> Callable[..., SearchRequest]:
    def make(**changes: Any) -> SearchRequest:
        values = {"source": float_checkpoint, "eval_data": pairs, "calibration_data": texts, "max_bytes": 22_000}
        return SearchRequest(**(values | {"methods": ("nearest", "error-feedback"), "trials": 3} | changes))

    return make


@pytest.fixture(scope="module")
def found(request_of: Callable[..., SearchRequest], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return search(request_of(), tmp_path_factory.mktemp("search") / "out")


def test_the_recipe_keeps_the_budget_to_the_byte(found: Any, float_checkpoint: Path) -> None:
    report = found.report
    assert report.chosen.found.bytes == report.chosen.found.predicted.bytes <= 22_000
    assert all(one.found.bytes == one.found.predicted.bytes for one in report.tried)
    checkpoint = found.folder / report.chosen.checkpoint
    assert ledger(checkpoint).stored_bytes == report.chosen.found.bytes
    recipe = load_recipe(found.folder / "recipe.toml")
    bits = {layer.name: report.chosen.found.widths[layer.name] for layer in report.layers}
    assert len(set(bits.values())) > 1  # a budget between two uniform ones mixes widths
    loaded = load_checkpoint(checkpoint)
    assert loaded.manifest is not None
    assert {name: tensor.spec.bits for name, tensor in loaded.manifest.tensors.items()} == bits
    assert recipe.name == loaded.manifest.recipe
    assert float_checkpoint.is_dir()


def test_widths_are_chosen_by_the_errors_that_the_candidates_calibration_makes(found: Any) -> None:
    errors = {}
    for method in ("nearest", "error-feedback"):
        layers = json.loads((found.folder / "structures" / f"all-{method}.json").read_text())["layers"]
        errors[method] = {(one["name"], each["bits"]): each["error"] for one in layers for each in one["choices"]}
    assert errors["nearest"] != errors["error-feedback"]
    assert {one.found.method for one in found.report.tried} == set(errors)
    for one in found.report.tried:
        total = sum(errors[one.found.method][width] for width in one.found.widths.items())
        assert one.found.predicted.error == pytest.approx(total, rel=1e-9)


def test_the_promise_is_measured_on_the_other_half(found: Any, float_checkpoint: Path, pairs: Path) -> None:
    promise = found.report.promise
    assert promise.examples == 60
    assert promise.loss == pytest.approx(promise.reference - promise.value)
    assert promise.low <= promise.loss <= promise.high
    own, held = halves(pairs, load_checkpoint(float_checkpoint).adapter, seed=0)
    rows = [{(one.first, one.second) for one in half.content.examples} for half in (own, held)]
    assert not rows[0] & rows[1]


def test_more_bits_move_the_output_less(found: Any) -> None:
    for layer in found.report.layers:
        errors = [choice.error for choice in layer.choices]
        sizes = [choice.bytes for choice in layer.choices]
        assert sizes == sorted(sizes)
        assert errors[-1] <= errors[0]
    pooler = next(one for one in found.report.layers if one.name == "pooler.dense")
    assert [choice.error for choice in pooler.choices] == [0.0] * 4  # nothing reads it
    assert found.report.chosen.found.widths["pooler.dense"] == 1


def test_the_page_shows_the_promise_and_every_layer(found: Any) -> None:
    page = (found.folder / "search.html").read_text()
    for one in found.report.tried:
        shown = f"edgeq deploy {found.report.source} ./run --recipe {found.folder / one.file}" in page
        assert shown == one.on_front
        assert load_recipe(found.folder / one.file).name in one.found.recipe
    assert "<svg" in page
    assert f"{found.report.promise.examples} examples that the search did not see" in page
    assert '<a class="skip" href="#front">' in page
    assert all(layer.name in page for layer in found.report.layers)


def test_a_finished_search_measures_no_sensitivity_again(
    found: Any, request_of: Callable[..., SearchRequest]
) -> None:
    told: set[str] = set()
    again = search(request_of(), found.folder, progress=lambda what, _done, _total: told.add(what))
    assert again.report.chosen == found.report.chosen
    assert told == {"candidates", "checking on data that the search did not see"}


def test_what_cannot_be_searched_is_refused(
    found: Any, request_of: Callable[..., SearchRequest], texts: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"not possible .* take [\d,]+ bytes"):
        search(request_of(max_bytes=1000), tmp_path / "a")
    with pytest.raises(UsageError, match="another model or other data"):
        search(request_of(seed=1), found.folder)
    few = tmp_path / "few.tsv"
    few.write_text("sentence1\tsentence2\tscore\n" + "a cat\tthe cat\t1\na dog\tthe fox\t0\n" * 20)
    with pytest.raises(UsageError, match="100 or more"):
        search(request_of(eval_data=few), tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no search of edgeq"):
        search(request_of(), tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".search.json.k1ll3d").touch()  # as a kill in the first file leaves it
    with pytest.raises(UsageError, match="not possible"):
        search(request_of(max_bytes=1000), tmp_path / "d")


def test_data_that_tell_nothing_are_refused_before_any_work(
    request_of: Callable[..., SearchRequest], make_gpt2: Callable[..., Path], tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("\n".join(f"съешь ещё этих мягких булок {number}" for number in range(200)))
    told: list[str] = []
    with pytest.raises(UsageError, match="a language that the model was made for"):
        search(
            request_of(calibration_data=unknown),
            tmp_path / "out",
            progress=lambda what, _done, _total: told.append(what),
        )
    assert not told
    short = tmp_path / "short.txt"
    short.write_text("\n".join(_lines(100, seed=5)))
    with pytest.raises(UsageError, match="words, too few to tell recipes apart; give 2000 or more"):
        halves(short, load_checkpoint(make_gpt2()).adapter, seed=0)


def test_the_quality_of_written_texts_is_not_searched_by(pairs: Path) -> None:
    adapter: Any = SimpleNamespace(task="seq2seq", architecture="BartForConditionalGeneration")
    with pytest.raises(UnsupportedError, match="the quality of a BartForConditionalGeneration is not measured"):
        halves(pairs, adapter, seed=0)


def test_what_the_user_changed_is_not_written_over(
    found: Any, request_of: Callable[..., SearchRequest], tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    shutil.copytree(found.folder, folder)
    for name in ("recipe.toml", "search.html"):
        before = (folder / name).read_text()
        (folder / name).write_text("mine")
        with pytest.raises(UsageError, match=f"{name} is not as 'edgeq search' wrote it"):
            search(request_of(), folder)
        assert (folder / name).read_text() == "mine"
        (folder / name).write_text(before)


def test_a_loss_beyond_the_limit_exits_with_one(
    float_checkpoint: Path, pairs: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", float_checkpoint, tmp_path / "out", "--eval-data", pairs, "--calibration-data", texts]
    arguments += ["--max-bytes", "16kB", "--method", "nearest", "--trials", "1", "--max-loss", "0", "--json"]
    assert cli.main([str(one) for one in arguments]) == 1
    assert json.loads(capsys.readouterr().out)["promise"]["kept"] is False
    assert cli.main([*map(str, arguments[:-3]), "--max-loss", "200"]) == 0
    assert "kept" in capsys.readouterr().out
    assert cli.main([*map(str, arguments[:-3]), "--method", "magic"]) == 2


def test_models_that_continue_texts_are_searched_by_perplexity(
    make_gpt2: Callable[..., Path], texts: Path, tmp_path: Path
) -> None:
    source, text = make_gpt2(), tmp_path / "eval.txt"
    text.write_text("\n".join(_lines(600, seed=4)) + "\n")
    request = SearchRequest(
        source=source, eval_data=text, calibration_data=texts, max_bytes=50_000, methods=("nearest",), trials=1
    )
    report = search(request, tmp_path / "out").report
    assert report.promise.metric == "perplexity"
    assert report.chosen.found.bytes == report.chosen.found.predicted.bytes <= 50_000


@pytest.mark.slow
def test_shapes_and_vocabulary_are_candidates_too(
    make_bert: Callable[..., Path], pairs: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every structure stores what was predicted, and its latency is told once."""
    source = make_bert(num_hidden_layers=4)
    monkeypatch.setattr(recipe_text_module, "_RATES", {True: (0.005, 2), False: (0.01, 2)})

    class Depth(Stopwatch):
        """A millisecond a block."""

        def of(self, checkpoint: Path, work: Path, *, progress: Progress) -> Latency:
            del work, progress
            depth = load_checkpoint(checkpoint).model.config.num_hidden_layers
            return Latency(float(depth), "measured here")

    stopwatch = Depth(load_target("host"))
    request = SearchRequest(
        source=source,
        eval_data=pairs,
        calibration_data=texts,
        max_bytes=60_000,
        max_ms=3.5,
        methods=("distill",),
        vocabulary=texts,
        trials=10,
    )
    report = search(request, tmp_path / "out", stopwatch=stopwatch).report
    tried = [one.found for one in report.tried]
    assert tried
    assert all(one.bytes == one.predicted.bytes for one in tried)
    assert all(one.latency.milliseconds <= 3.5 for one in tried)
    assert {one.structure.blocks for one in tried} == {3}
    assert any("4.00 ms" in one.reason for one in report.study.refused)
    assert "measured here" in (tmp_path / "out" / "search.html").read_text()
    pruned = [one.structure.pruned for one in tried]
    assert any(pruned) or any(one.choices["pruned"] for one in report.study.refused)
    with pytest.raises(UsageError, match=r"--max-ms 2 is not possible .* take 3.00 ms \(measured here\)"):
        search(dataclasses.replace(request, max_ms=2.0), tmp_path / "out", stopwatch=stopwatch)


def test_factors_store_what_was_predicted(make_bert: Callable[..., Path], texts: Path, tmp_path: Path) -> None:
    source = make_bert(num_hidden_layers=2)
    adapter = load_checkpoint(source).adapter
    space = space_of(adapter, methods=("nearest",), shapes=True, vocabulary=None)
    structures = Structures(source, tmp_path, space, calibration_data=texts, seed=0, text=None)
    for structure in (Structure(factor="low-rank, odd"), Structure(factor="kronecker, all")):
        shaped = structures.measured(structure, "nearest", progress=silent)
        assert shaped == structures.measured(structure, "nearest", progress=silent)  # read back from the folder
        widths = choose_widths(shaped.layers, budget=10**9)
        assert any(choice.error > 0 for layer in shaped.layers for choice in layer.choices)
        file = tmp_path / "mine.toml"
        file.write_text(recipe_text("mine", "x", widths=widths, methods=(), tables=space.tables(structure)))
        compress_model(source, tmp_path / structure.label, recipe=file)
        stored = ledger(tmp_path / structure.label).stored_bytes
        assert stored == shaped.fixed + total_bytes(widths)


def test_an_interrupt_keeps_the_best_so_far(request_of: Callable[..., SearchRequest], tmp_path: Path) -> None:
    def stops(what: str, _done: int, _total: int) -> None:
        if what.startswith("error-feedback:"):
            raise KeyboardInterrupt

    result = search(request_of(), tmp_path / "out", progress=stops)
    assert result.interrupted
    assert result.report.chosen.found.method == "nearest"
    assert (tmp_path / "out" / "recipe.toml").is_file()
    again = search(request_of(), tmp_path / "out")
    assert not again.interrupted
    assert {one.found.method for one in again.report.tried} == {"nearest", "error-feedback"}
